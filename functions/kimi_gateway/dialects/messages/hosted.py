"""Searches and opened pages as blocks of a message, in the form of Anthropic's servers (its SDK, 2026-11).

`encrypted_content` holds the text that the model read, in the gateway's own encoding, so that a conversation
that is sent again brings it along.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.pivot.search import SearchCall, Source, cited

_NAMES = {"search": "web_search", "open_page": "web_fetch"}
LONGEST_CITED = 150  # characters of `cited_text`, as Anthropic bounds it
# Anthropic's code for a search, where the pivot's is one of pages only.
_SEARCH_CODES = {"invalid_tool_input", "max_uses_exceeded", "too_many_requests", "query_too_long"}


class HostedBlocks:
    """The blocks of one answer. `prefix` makes their ids unique; `created` is the answer's unix second."""

    def __init__(self, prefix: str, created: int) -> None:
        self._prefix = prefix
        self._created = created
        self._sources: dict[str, Source] = {}
        self.searches = 0
        self.pages = 0

    @property
    def sources(self) -> list[Source]:
        """In the order of their numbers."""
        return list(self._sources.values())

    def use(self, call: SearchCall) -> dict[str, Any]:
        """The block of a call that begins."""
        member = "query" if call.kind == "search" else "url"
        name = _NAMES[call.kind]
        return {
            "type": "server_tool_use",
            "id": self._id(call),
            "name": name,
            "input": {member: call.argument},
        }

    def result(self, call: SearchCall) -> dict[str, Any]:
        """The block of a call that has ended."""
        kind = f"{_NAMES[call.kind]}_tool_result"
        content: Any
        if call.error is not None:
            code = call.error
            if call.kind == "search" and code not in _SEARCH_CODES:
                code = "unavailable"
            content = {"type": f"{kind}_error", "error_code": code}
        elif call.kind == "search":
            self.searches += 1
            self._sources |= {each.url: each for each in call.sources if each.url not in self._sources}
            content = [_result(source) for source in call.sources]
        else:
            self.pages += 1
            content = self._page(call.sources[0])
        return {"type": kind, "tool_use_id": self._id(call), "content": content}

    def _page(self, page: Source) -> dict[str, Any]:
        source = {"type": "text", "media_type": "text/plain", "data": page.text}
        moment = datetime.datetime.fromtimestamp(self._created, datetime.UTC)
        return {
            "type": "web_fetch_result",
            "url": page.url,
            "retrieved_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "content": {"type": "document", "source": source, "title": page.title},
        }

    def _id(self, call: SearchCall) -> str:
        return f"srvtoolu_{self._prefix}{call.id}"

    @property
    def usage(self) -> dict[str, int]:
        return {"web_search_requests": self.searches, "web_fetch_requests": self.pages}


def _result(source: Source) -> dict[str, Any]:
    return {
        "type": "web_search_result",
        "url": source.url,
        "title": source.title,
        "encrypted_content": seal(source.text),
        "page_age": source.date or None,
    }


def citations(text: str, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The sources that a text block cites, each once."""
    numbers = dict.fromkeys(index for index, _, _ in cited(text, sources))
    return [
        {
            "type": "web_search_result_location",
            "url": sources[index].url,
            "title": sources[index].title,
            "encrypted_index": seal(str(index + 1)),
            "cited_text": sources[index].text[:LONGEST_CITED],
        }
        for index in numbers
    ]
