"""The addresses that the model may open: those that occurred in the conversation or in results. Pure.

A model that follows a hostile text could otherwise be made to put what it knows into an address of its own
making (Anthropic's rule `url_not_in_prior_context`, read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

LONGEST = 2_048  # characters of an address
MOST = 2_000  # addresses of a conversation
SEARCHED = 2 * 2**20  # characters of it, from its end
_ADDRESS = re.compile(r"https?://[^\s<>\"'`\\^{|}，。、；！？）】」』]{1,2048}", re.I)
_CLOSING = ".,;:!?)]}*_~"


class KnownAddresses:
    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, urls: Iterable[str]) -> None:
        for url in urls:
            if len(self._known) < MOST and (form := _form(url)):
                self._known.add(form)

    def read(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """All addresses in texts of messages of the pivot, the latest first."""
        left = SEARCHED
        for message in reversed(list(messages)):
            if message.get("role") == "assistant":  # the model's own words prove nothing
                continue
            for text in _texts(message.get("content")):
                self.add(found for each in _ADDRESS.findall(text[-left:]) for found in _variants(each))
                left -= len(text)
                if left <= 0:
                    return

    def knows(self, url: str) -> bool:
        form = _form(url)
        return form is not None and form in self._known


def _texts(content: Any) -> Iterable[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _variants(found: str) -> Iterable[str]:
    """With and without what may belong to the sentence around it."""
    yield found
    yield found.rstrip(_CLOSING)


def _form(url: str) -> str | None:
    """One form for the ways to write an address: no fragment, host in lower case, a path at least."""
    if len(url) > LONGEST:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not parts.netloc:
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path or '/'}{query}"
