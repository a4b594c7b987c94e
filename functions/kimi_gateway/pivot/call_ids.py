"""Unique tool-call ids. The vendor counts its ids from zero in each turn (`run:0`), but clients expect unique
ones: Claude Code drops the second result under one id from its history (2026-11).

A client gets the vendor's id with a mark behind it; the mark is removed when the id comes back. Nothing is
stored: the mark ends in a check character over the whole id, so other ids pass unchanged.

A call that comes back is recognised by its id, its arguments and its place, which is the last user message
before it and the number of messages since. Many conversations of an account begin alike, so an id is not
enough.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
Randomness = Callable[[int], bytes]  # returns this number of unpredictable bytes

_BEGIN = "_kg"
_RANDOM = 6  # characters; 62 ** 6 values for the calls of one conversation that share a vendor's id
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # legal in every client's ids
_MARKED = re.compile(rf"(?s)(.+{_BEGIN}[0-9A-Za-z]{{{_RANDOM}}})([0-9A-Za-z])")
MARK = len(_BEGIN) + _RANDOM + 1  # characters; OpenAI's clients accept ids of 64, some of 40


def marked(id: str, randomness: Randomness) -> str:
    """The client's form of a vendor's id; different at each call."""
    number = int.from_bytes(randomness(8), "big")
    digits = []
    for _ in range(_RANDOM):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    whole = f"{id}{_BEGIN}{''.join(digits)}"
    return whole + _check(whole)


def vendors(id: str) -> str:
    """The vendor's id for a client's; an id without a valid mark is returned unchanged."""
    found = _MARKED.fullmatch(id) if _BEGIN in id[-MARK:] else None
    if found is None or found[2] != _check(found[1]):
        return id
    return found[1][: 1 - MARK]


def _check(whole: str) -> str:
    return _ALPHABET[zlib.crc32(whole.encode("utf-8", "surrogatepass")) % len(_ALPHABET)]


def places(messages: Sequence[Message]) -> Iterator[tuple[Message | None, bytes]]:
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


def next_place(messages: Sequence[Message]) -> bytes:
    """The place of the message that follows."""
    *_, (_, place) = places(messages)
    return place


def entry(prefix: str, place: bytes, id: str, arguments: Any) -> str:
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
