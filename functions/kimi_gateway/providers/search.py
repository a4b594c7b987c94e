"""The interface of a provider that can search the web and open pages."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, Protocol, runtime_checkable

from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.provider import Token

Reason = Literal[
    "invalid",  # the query or address itself is refused
    "refused_address",  # the provider does not open this page
    "no_text",  # the page has no readable text
    "rate",  # too many searches at present
    "token",  # this token may not search
    "unavailable",  # anything else: time-outs, faults
]
MOST_RESULTS = 20  # of one search (platform's page "search", 2026-11)
MOST_SITES = 5  # for one search (platform's page "search pro", 2026-11)


@dataclass(frozen=True, slots=True)
class Query:
    """`results` from 1 to MOST_RESULTS; `seconds` from 1 to 60, the provider's own time-out.

    `thorough` asks for passages of the pages, which costs more; only a thorough search takes `sites` (five at
    most) and `start` and `end` (YYYY, YYYY-MM or YYYY-MM-DD).
    """

    text: str
    results: int = 5
    seconds: int = 30
    thorough: bool = False
    sites: tuple[str, ...] = ()
    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One page that a search found. Members without a value are empty. `passages` are parts of its text."""

    url: str
    title: str
    snippet: str = ""
    site: str = ""
    date: str = ""
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page that was opened; `text` is Markdown."""

    url: str
    title: str
    text: str = field(repr=False)


class SearchFailed(Exception):
    """`detail` is for the log. `billed`: whether the provider wants money for it, None if that is not known.
    `retry_after` is in seconds, None if the provider does not say."""

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        billed: bool | None = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.billed = billed
        self.retry_after = retry_after


class Search(Protocol):
    """Every method raises SearchFailed."""

    async def search(self, query: Query, token: Token) -> list[Result]:
        """Results, best first; an empty list if nothing was found."""
        ...

    async def open_page(self, url: str, token: Token) -> Page: ...


@runtime_checkable
class Searches(Protocol):
    """A provider that can search. Users check for it with `isinstance`."""

    @property
    def web(self) -> Search: ...


@runtime_checkable
class SearchesItself(Protocol):
    """A provider whose model searches without tools of the gateway, if the prepared chat asks for a search.
    Its taps turn the reports of its searches into `SearchChunk`s."""

    searches_itself: bool
