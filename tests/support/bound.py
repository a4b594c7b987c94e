"""A provider whose calls are bound to one token, as those of a request with uploaded files are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.http import Headers
from kimi_gateway.net import sse
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.provider import Call, Prepared, Provider, Token


@dataclass
class BoundChat:
    inner: Prepared
    only: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def call(self) -> Call:
        return replace(self.inner.call(), only=self.only)


@dataclass
class BoundProvider:
    inner: Provider
    only: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def prepare(self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False) -> BoundChat:
        return BoundChat(self.inner.prepare(chat, model, headers, cheaply), self.only)

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        return self.inner.stream(call, token)
