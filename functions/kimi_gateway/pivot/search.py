"""Web search in the pivot: what a request asks for, and what a dialect shows of each search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import Literal
from urllib.parse import urlsplit

from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot.chunks import Chunk

# Anthropic's error codes of both tools (its documentation, read 2026-11); OpenAI has none of its own.
ErrorCode = Literal[
    "invalid_tool_input", "query_too_long", "too_many_requests", "max_uses_exceeded", "unavailable",
    "url_not_allowed", "url_not_accessible", "unsupported_content_type", "url_too_long",
    "url_not_in_prior_context",
]  # fmt: skip
Kind = Literal["search", "open_page"]
RESULTS = {"low": 3, "medium": 5, "high": 10}  # pages of a search by OpenAI's `search_context_size`


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """`searches` and `pages`: which tools the model gets. `most`: searches that the client allows, None where
    the gateway's own bound applies. `allowed` and `blocked` are domains; one of them is empty. `forced`: a
    note asks for a search. `research`: more rounds. `lines`: an answer in OpenAI's own format has a line of
    text for each page. `asked_by`: the client's fields that ask for it, which are named as ignored where no
    search can run.
    """

    searches: bool = True
    pages: bool = True
    results: int = 5
    thorough: bool = False
    most: int | None = None
    most_pages: int | None = None
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    location: str = ""
    forced: bool = False
    research: bool = False
    lines: bool = False
    asked_by: tuple[str, ...] = field(default=(), compare=False)

    def permits(self, url: str) -> bool:
        """Whether the domain rules let this address through: a domain stands for its subdomains too."""
        domain = host(url)
        if self.allowed:
            return any(_within(domain, each) for each in self.allowed)
        return bool(domain) and not any(_within(domain, each) for each in self.blocked)


@dataclass(frozen=True, slots=True)
class Source:
    """One page, as a client sees it. `text` is what the model read of it."""

    url: str
    title: str
    date: str = ""
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SearchCall:
    """A search, or a page that is opened. It stands in the stream twice: when it begins, then `done`.

    `argument` is the query or the address. `error` is None where it succeeded. `id` is unique in the turn.
    """

    id: str
    kind: Kind
    argument: str
    done: bool = False
    sources: Sequence[Source] = ()
    error: ErrorCode | None = None


_NUMBER = re.compile(r"[\[【](\d{1,4})[\]】]")
MOST_CITED = 200  # places of one text
MOST_SOUGHT = 100  # sources whose address is sought in a text
LONGEST_SOUGHT = 200_000  # characters of the text


def cited(text: str, sources: Sequence[Source]) -> list[tuple[int, int, int]]:
    """Where a text cites a source: by its number, as in `[1]`, or by its address. Each place is the source's
    index, and the start and end in code points; in order of their start."""
    found = []
    text = text[:LONGEST_SOUGHT]
    for mark in _NUMBER.finditer(text):
        if 1 <= (number := int(mark[1])) <= len(sources):
            found.append((number - 1, mark.start(), mark.end()))
    for index, source in enumerate(sources[:MOST_SOUGHT]):
        at = text.find(source.url)
        if at >= 0:
            found.append((index, at, at + len(source.url)))
    return sorted(found, key=lambda place: place[1:])[:MOST_CITED]


class SearchChunk(Chunk):
    """A search in the stream, between the model's own chunks. It has no choices."""

    __slots__ = ("call",)

    def __init__(self, call: SearchCall) -> None:
        super().__init__({"choices": []}, substance=False, finishes=False)
        self.call = call


def host(url: str) -> str:
    """The lower-case host of an address, empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _within(domain: str, rule: str) -> bool:
    """`rule` may have a path or a leading dot, which count for nothing."""
    wanted = rule.lower().partition("/")[0].strip(".")
    return bool(wanted) and (domain == wanted or domain.endswith("." + wanted))
