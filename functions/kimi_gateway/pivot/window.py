"""The model's window, which holds input and output together. Pure; the counts come from the caller."""

from __future__ import annotations

from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import ContextLengthExceeded


def output_of(body: dict[str, Any], model: Model) -> int:
    """The requested output limit, or the one that the upstream assumes without a request."""
    output: int = body.get("max_completion_tokens", model.upstream_default)
    return output


def take_limit(body: dict[str, Any]) -> tuple[str, int | None]:
    """Take the client's output limit out of the body; returns its field and its value. The newer field counts
    if there are both."""
    older = body.pop("max_tokens", None)
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return name, body.pop("max_completion_tokens", older)


def set_limit(body: dict[str, Any], name: str, limit: int, model: Model) -> list[str]:
    """Set the output limit under its newer name, lowered to the model's. Returns the client's field, `name`,
    if that lowers it."""
    body["max_completion_tokens"] = min(limit, model.max_output)
    return [name] if limit > model.max_output else []


def fit(body: dict[str, Any], model: Model, input_tokens: int, least: int = 1) -> bool:
    """Lower the output limit to what the input leaves of the window; returns whether it was lowered. `least`:
    an answer with fewer tokens is useless to the client, unless it asked for fewer. Raises
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
