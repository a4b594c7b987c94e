"""Which token a conversation stays with: rendezvous hashing of its beginning, which needs no memory and moves
only the conversations of a token that goes out. Staying keeps the account's cache discount.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from kimi_gateway.providers.provider import Token

HASHED = 4_096  # characters of each message of the beginning


def beginning(body: Mapping[str, Any]) -> bytes:
    """What stays from turn to turn: the client's cache key, else all up to the first user message."""
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return key.encode("utf-8", "replace")
    opening: list[str] = []
    for message in body["messages"]:
        opening += [message["role"], _text(message.get("content"))]
        if message["role"] == "user":
            break
    return "\0".join(opening).encode("utf-8", "replace")


def _text(content: Any) -> str:
    """Of parts their texts alone: media are long, and differ where it matters in the text beside them."""
    if isinstance(content, list):
        content = "\0".join(str(part.get("text") or part.get("type")) for part in content)
    return str(content)[:HASHED]


def ranked(start: bytes, tokens: Iterable[Token]) -> list[Token]:
    """The conversation's order of preference."""
    return sorted(tokens, key=lambda token: _weight(start, token), reverse=True)


def _weight(start: bytes, token: Token) -> bytes:
    return hashlib.blake2b(start, digest_size=8, key=token.id.encode()[:64]).digest()
