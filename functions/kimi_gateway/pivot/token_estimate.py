"""Estimates tokens by class of character: there is no offline tokeniser for these models, and a request must
not wait for one. Billing uses the upstream's count if there is one."""

from __future__ import annotations

import math
from typing import Any

PER_MESSAGE = 4  # role and separators
PER_MEDIA = 1_024  # an image's share of the window, whatever its size


def of_text(text: str) -> float:
    """About a quarter token for an ASCII character, 0.7 for a wide one (Chinese: 0.6 to 0.7 according to the
    vendor)."""
    if text.isascii():
        return len(text) / 4
    wide = (len(text.encode("utf-8", "surrogatepass")) - len(text)) / 2
    wide = min(wide, len(text))
    return (len(text) - wide) / 4 + wide * 0.7


def of_messages(messages: list[Any], tools: Any = None) -> int:
    """Input tokens of a chat request in the pivot format, rounded up."""
    total = sum(PER_MESSAGE + _of_message(message) for message in messages if isinstance(message, dict))
    if isinstance(tools, list):
        total += sum(_of_json(tool) for tool in tools)
    return math.ceil(total)


def _of_message(message: dict[str, Any]) -> float:
    content = message.get("content")
    total = _of_json(message.get("tool_calls")) + of_text(str(message.get("reasoning_content") or ""))
    if isinstance(content, str):
        return total + of_text(content)
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image_url", "video_url", "file_url"):
            total += PER_MEDIA
        elif isinstance(part, dict):
            total += of_text(str(part.get("text") or ""))
    return total


def _of_json(value: Any) -> float:
    """Tokens of any JSON value, including names and punctuation."""
    if isinstance(value, str):
        return of_text(value) + 0.5
    if isinstance(value, dict):
        return sum(of_text(str(name)) + 1 + _of_json(member) for name, member in value.items())
    if isinstance(value, list):
        return sum(_of_json(member) for member in value)
    return 0.0 if value is None else 1.0
