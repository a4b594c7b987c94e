"""The last checks of an admitted request before it is sent upstream. Most of the work may run outside of the
loop."""

from __future__ import annotations

from typing import Any

from kimi_gateway.flow.apart import apart
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.window import fit, output_of
from kimi_gateway.providers.registry import Resolved


async def fitted(body: dict[str, Any], resolved: Resolved, size: int, least: int) -> bool:
    """Keep input and output within the window; returns whether the output limit was lowered. `size` is the
    input's in bytes: a token has at least one byte, so most bodies need no count. An estimate may be wrong by
    half; if that matters, the upstream counts. Raises ContextLengthExceeded."""
    model = resolved.model
    output = output_of(body, model)
    texts_only = all(type(message.get("content")) is not list for message in body["messages"])
    if (size // 2 if texts_only else size) + output <= model.window:  # a text's estimate is its bytes / 4
        return False
    tools, estimate = await apart(size, lambda: _estimated(body))
    most = 2 * estimate + 64
    if most + output <= model.window:
        return False
    if most > model.window / 2:
        most = await resolved.directory.count(model, body["messages"], estimate - tools) + tools
    return fit(body, model, most, least)


def _estimated(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the tools, and of everything."""
    tools = token_estimate.of_messages([], body.get("tools"))
    return tools, token_estimate.of_messages(body["messages"]) + tools
