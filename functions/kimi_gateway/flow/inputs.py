"""What an upstream call is made of, from an admitted request. Most of it may run apart from the loop."""

from __future__ import annotations

from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.flow.apart import apart
from kimi_gateway.http import Request, sendable
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.moonshot import messages
from kimi_gateway.providers.moonshot.adapt import Adapted, fit
from kimi_gateway.providers.moonshot.provider import NONCE
from kimi_gateway.providers.moonshot.reasoning import ReasoningCollector
from kimi_gateway.settings import Settings

LONGEST_NONCE = 512  # characters


def is_native(chat: ChatRequest, model: Model, settings: Settings) -> bool:
    """Whether the request goes to the vendor's own Messages endpoint."""
    return chat.seals is not None and model.messages and settings.anthropic == "native"


def signed(request: Request, chat: ChatRequest, model: Model) -> dict[str, str]:
    """The client's nonce, to be signed by the vendor. The signature covers the model, so it is asked for only
    where that was not rewritten."""
    nonces = request.headers.all(NONCE) if chat.model == model.upstream else []
    fine = len(nonces) == 1 and len(nonces[0]) <= LONGEST_NONCE and sendable(nonces[0])
    return {NONCE: nonces[0]} if fine else {}


def payload(chat: ChatRequest, body: dict[str, Any], native: bool) -> bytes:
    """The body in bytes; members that nobody changed as the client wrote them."""
    if native:
        return messages.payload(body, chat.seals or {})
    return jsonio.rewrite(body, chat.source) if chat.source else jsonio.dumps(body)


def gatherer(chat: ChatRequest, adapted: Adapted) -> ReasoningCollector | None:
    """What collects the answer's reasoning, if it may bring any that a later request needs."""
    return ReasoningCollector(chat.body["messages"]) if adapted.remembers else None


async def fitted(body: dict[str, Any], model: Model, size: int, least: int, directory: Directory) -> bool:
    """Keep input and output inside the window; whether the output was lowered for it.

    `size` is the input's in bytes: a token has a byte at least, so most bodies need no count. An estimate may
    be wrong by half; where that matters the upstream's own count is asked for. Raises ContextLengthExceeded.
    """
    output = body.get("max_completion_tokens", model.upstream_default)
    texts_only = all(type(message.get("content")) is not list for message in body["messages"])
    if (size // 2 if texts_only else size) + output <= model.window:  # a text's estimate is its bytes / 4
        return False
    tools, estimate = await apart(size, lambda: _estimated(body))
    most = 2 * estimate + 64
    if most + output <= model.window:
        return False
    if most > model.window / 2:
        most = await directory.count(model, body["messages"], estimate - tools) + tools
    return fit(body, model, most, least)


def _estimated(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the tools, and of all."""
    tools = token_estimate.of_messages([], body.get("tools"))
    return tools, token_estimate.of_messages(body["messages"]) + tools
