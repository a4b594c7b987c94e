"""A vendor's API, driven by its row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.http import Headers
from kimi_gateway.net import http, sse
from kimi_gateway.observe import trace_headers
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.compatible.answers import Reader, refused
from kimi_gateway.providers.compatible.prepare import PreparedChat, prepare
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.moonshot.provider import QUICK, entries, events, json_object
from kimi_gateway.providers.provider import Call, Token


class Compatible:
    """Implements `Provider`."""

    def __init__(
        self, vendor: Vendor, client: http.Client, timeouts: http.Timeouts, event_limit: int
    ) -> None:
        self.name = vendor.id
        self.vendor = vendor
        self._client = client
        self._timeouts = timeouts
        self._event_limit = event_limit
        self._refused = partial(refused, vendor)

    def prepare(
        self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False
    ) -> PreparedChat:
        return prepare(chat, model, self.vendor)

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        headers = {**self._headers(token), **trace_headers(), "accept": "text/event-stream"}
        url = f"{self._base(token)}/chat/completions"
        exchange = self._client.send("POST", url, headers, call.payload, self._timeouts)
        return events(exchange, self._event_limit, call, Reader(self.vendor), self._refused)

    async def models(self, token: Token) -> list[dict[str, Any]]:
        """The vendor's list, else the known models."""
        if not self.vendor.models:
            return [{"id": model.id, "object": "model"} for model in self.vendor.known]
        url = self._base(token) + self.vendor.models
        exchange = self._client.send("GET", url, self._headers(token), b"", QUICK)
        return entries(await json_object(exchange, self._refused))

    async def live(self, token: Token) -> bool:
        """Raises UpstreamFailure, also if the vendor has no request that costs nothing."""
        if not self.vendor.models:
            raise UpstreamFailure(
                "model", f"{self.vendor.id} has no request that checks a token without cost"
            )
        try:
            await self.models(token)
        except UpstreamFailure as failure:
            if failure.cause == "authentication":
                return False
            raise
        return True

    def _base(self, token: Token) -> str:
        bases = self.vendor.bases
        return (bases.get(token.base) or next(iter(bases.values()))).rstrip("/")

    def _headers(self, token: Token) -> dict[str, str]:
        credentials = {"authorization": f"Bearer {token.secret}"} if token.secret else {}
        return {**credentials, "content-type": "application/json"}
