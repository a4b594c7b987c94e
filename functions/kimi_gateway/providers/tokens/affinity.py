"""The token of a conversation: rendezvous hashing of the conversation's beginning. It needs no memory and
moves only the conversations of a token that fails. Staying on one token keeps the account's cache
discount."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from kimi_gateway.providers.provider import Token

HASHED = 4_096  # characters of each part of the beginning, because media may be long


def beginning(body: Mapping[str, Any]) -> bytes:
    """A digest of the part that stays the same from turn to turn: the client's cache key, else everything up
    to the first user message."""
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return _digest([key])
    opening: list[str] = []
    for message in body["messages"]:
        opening += [message["role"], *_texts(message.get("content"))]
        if message["role"] == "user":
            break
    return _digest(opening)


def _texts(content: Any) -> list[str]:
    return list(map(_of_part, content)) if isinstance(content, list) else [str(content)[:HASHED]]


def _of_part(part: Any) -> str:
    """The head of a text; for media the tail of the address or data, because their heads are alike."""
    value = part.get("text") or part.get(part.get("type")) if isinstance(part, dict) else part
    if isinstance(value, dict):
        return str(value.get("url"))[-HASHED:]
    return str(value)[:HASHED]


def _digest(texts: Iterable[str]) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=16).digest()


def ranked(start: bytes, tokens: Iterable[Token]) -> list[Token]:
    """Tokens in the conversation's order of preference."""
    return sorted(tokens, key=lambda token: _weight(start, token), reverse=True)


def _weight(start: bytes, token: Token) -> bytes:
    return hashlib.blake2b(start, digest_size=8, key=token.id.encode()[:64]).digest()
