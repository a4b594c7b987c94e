"""The model's window holds input and output together. Pure; the counts come from the caller."""

from __future__ import annotations

from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import ContextLengthExceeded


def output_of(body: dict[str, Any], model: Model) -> int:
    """Tokens that the answer may have, or that the upstream assumes where the request names no limit."""
    output: int = body.get("max_completion_tokens", model.upstream_default)
    return output


def fit(body: dict[str, Any], model: Model, input_tokens: int, least: int = 1) -> bool:
    """Lower the output allowance to what the input leaves of the window; whether it was lowered. `least`: an
    answer of fewer tokens is of no use to the client, unless it asked for fewer. Raises
    ContextLengthExceeded."""
    room = model.window - input_tokens
    asked = output_of(body, model)
    needed = max(1, min(least, asked))
    if room < needed:
        total = input_tokens if input_tokens > model.window else input_tokens + needed
        raise ContextLengthExceeded.beyond(total, model.window, param="messages")
    if asked > room:
        body["max_completion_tokens"] = room
    return asked > room
