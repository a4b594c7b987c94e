"""The service's own web search: from its references in a chunk to a search that each dialect can show."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.search import SearchCall, SearchChunk, Source

MEMBER = "kimi_web_search"  # of a delta, only between the reader and this tap
MOST = 50  # pages of one answer that are shown
LONGEST = 2_000  # characters of a text about a page


class Sources:
    """Implements `Tap`. `shown`: the client asked for a search."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._seen = set[str]()
        self._numbers = itertools.count(1)

    def add(self, chunks: list[Chunk]) -> None:
        if not any(_told(chunk) for chunk in chunks):
            return
        made: list[Chunk] = []
        for chunk in chunks:
            told = _told(chunk)
            made += [chunk] if told is None else self._search(told)
        chunks[:] = made

    def _search(self, told: dict[str, Any]) -> list[Chunk]:
        fresh = [source for source in told["sources"] if source[0] not in self._seen]
        fresh = fresh[: MOST - len(self._seen)]
        self._seen.update(source[0] for source in fresh)
        if not self._shown or not fresh:
            return []
        begun = SearchCall(f"web_{next(self._numbers)}", "search", told["query"])
        done = replace(begun, done=True, sources=[Source(*source) for source in fresh])
        return [SearchChunk(begun), SearchChunk(done)]

    def kept(self) -> dict[str, bytes]:
        return {}


def _told(chunk: Chunk) -> dict[str, Any] | None:
    for choice in chunk.body.get("choices") or ():
        delta = choice.get("delta") or {}
        if MEMBER in delta:
            found: dict[str, Any] = delta[MEMBER]
            return found
    return None


def of_references(references: object) -> list[list[str]]:
    """Address, title, date and text of each page; what is not of this form is left out."""
    found = []
    for each in references if isinstance(references, list) else ():
        base = each.get("base") if isinstance(each, dict) else None
        if isinstance(base, dict) and isinstance(url := base.get("url"), str) and url:
            texts = (base.get(name) for name in ("title", "publishTime", "snippet"))
            found.append(
                [url[:LONGEST], *(text[:LONGEST] if isinstance(text, str) else "" for text in texts)]
            )
        if len(found) >= MOST:
            break
    return found


def _cut(text: object) -> str:
    return text[:LONGEST] if isinstance(text, str) else ""
