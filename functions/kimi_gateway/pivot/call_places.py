"""Recognises a tool call that comes back in a later request: by its id, its arguments and its place.

The place is the last user message before it and the number of messages since. The vendor counts ids from zero
in each conversation, and many conversations of an account begin alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def of(messages: Sequence[Message]) -> Iterator[tuple[Message | None, bytes]]:
    """Each message with its place, and finally the place of the next message."""
    digest, since = b"", 0
    for message in messages:
        yield message, digest + since.to_bytes(4, "big")
        if message["role"] == "user":
            digest, since = hashlib.sha256(_text(message.get("content"))).digest(), 0
        else:
            since += 1
    yield None, digest + since.to_bytes(4, "big")


def _text(content: Any) -> bytes:
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return str(content).encode("utf-8", "surrogatepass")


def following(messages: Sequence[Message]) -> bytes:
    """The place of the message that follows."""
    *_, (_, place) = of(messages)
    return place


def name(prefix: str, place: bytes, id: str, arguments: Any) -> str:
    """The name of a cache entry for the call."""
    told = place + _digest(arguments) + id.encode("utf-8", "surrogatepass")
    return prefix + hashlib.sha256(told).hexdigest()[:40]


def _digest(arguments: Any) -> bytes:
    """A digest that is the same for equal JSON values, however the client wrote them."""
    try:
        value = json.loads(arguments or "{}", parse_float=_plain)
        arguments = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        arguments = str(arguments)
    return hashlib.sha256(arguments.encode("utf-8", "surrogatepass")).digest()


def _plain(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number
