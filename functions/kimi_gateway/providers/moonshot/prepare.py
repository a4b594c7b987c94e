"""Prepares a chat for the platform: adapted to its model, rendered, and followed on its way back."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.messages.request import MessagesRequest
from kimi_gateway.http import Headers, sendable
from kimi_gateway.net import jsonio
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.moonshot import messages
from kimi_gateway.providers.moonshot.adapt import Adapted, adapt
from kimi_gateway.providers.moonshot.reasoning import Lost, ReasoningCollector
from kimi_gateway.providers.moonshot.restoring import Restorer
from kimi_gateway.providers.moonshot.schema import clean
from kimi_gateway.providers.provider import Call, Missing, Tap

NONCE = "x-msh-request-nonce"  # the client's; the answer is then signed over nonce, time and model
LONGEST_NONCE = 512  # characters


@dataclass(frozen=True, slots=True)
class MessagesCall(Call):
    """`payload` is for the platform's Messages endpoint."""


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """See `Prepared`. `headers` are the client's headers that are passed on. `native`: the call goes to the
    platform's Messages endpoint."""

    chat: ChatRequest = field(repr=False)
    model: Model
    adapted: Adapted = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    native: bool

    @property
    def body(self) -> dict[str, Any]:
        return self.adapted.body

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.adapted.ignored

    @property
    def missing(self) -> Missing | None:
        adapted = self.adapted
        return Lost(adapted.body, adapted.missing, self.model.replay) if adapted.missing else None

    def call(self) -> Call:
        chat, body = self.chat, self.adapted.body
        free = chat.free
        if free:
            free |= {sent for sent, name in self.adapted.renamed.tools.items() if name in free}
        if self.native and isinstance(chat, MessagesRequest):
            payload = messages.payload(body, chat.seals)
            return MessagesCall(self.model, body, payload, self.headers, free=free, streamed=chat.stream)
        payload = jsonio.rewrite(body, chat.source) if chat.source else jsonio.dumps(body)
        return Call(self.model, body, payload, self.headers, free=free, streamed=chat.stream)

    def taps(self) -> list[Tap]:
        """Names are restored first, because reasoning is kept by the arguments that the client knows."""
        taps: list[Tap] = []
        if self.adapted.renamed:
            taps.append(Restorer(self.adapted.renamed))
        if self.adapted.remembers:
            taps.append(ReasoningCollector(self.chat.body["messages"]))
        return taps


def prepare(
    chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False, native: bool = False
) -> PreparedChat:
    """See `Provider.prepare`. `native`: requests in Anthropic's format go to the platform's Messages endpoint
    if it supports the model."""
    if cheaply:
        with clean.quickly():
            adapted = adapt(chat, model)
    else:
        adapted = adapt(chat, model)
    native = native and model.messages and isinstance(chat, MessagesRequest)
    return PreparedChat(chat, model, adapted, _signed(headers, chat, model), native)


def _signed(headers: Headers, chat: ChatRequest, model: Model) -> dict[str, str]:
    """The client's nonce for the vendor to sign. The signature covers the model, so the nonce is dropped if
    the model was rewritten."""
    nonces = headers.all(NONCE) if chat.model == model.upstream else []
    fine = len(nonces) == 1 and len(nonces[0]) <= LONGEST_NONCE and sendable(nonces[0])
    return {NONCE: nonces[0]} if fine else {}
