"""Decides about the model's search calls: which run, which are refused, and when searching ends. Pure.

The turn goes: round → calls of the gateway's tools → their results → next round. It ends with a round that
has none. Bounds that the client or the operator sets make the next round the last one that may search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import field

from kimi_gateway.dataclass import dataclass
from kimi_gateway.flow.search import tools
from kimi_gateway.flow.search.addresses import KnownAddresses
from kimi_gateway.pivot.search import ErrorCode, SearchOptions
from kimi_gateway.providers.search import MOST_SITES, Query

MOST_CALLS = 8  # calls of one round that run; the others are refused


@dataclass(frozen=True, slots=True)
class Bounds:
    """`rounds` that may end with a search, `seconds` of searching in all, `characters` of results."""

    rounds: int = 5
    seconds: float = 90.0
    characters: int = 120_000


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the gateway's tools, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Step:
    """The action for one call: run `query`, open `url`, or give the model `refusal` with its `error`."""

    call: ToolCall
    argument: str = ""
    query: Query | None = None
    url: str | None = None
    error: ErrorCode | None = None
    refusal: str = ""

    @property
    def tool(self) -> str | None:
        """The provider's tool that runs it (its name in catalog.models.FEES); None if nothing runs."""
        if self.query is not None:
            return tool_of(self.query)
        return None if self.url is None else "fetch"


def tool_of(query: Query) -> str:
    return "search_pro" if query.thorough else "search"


@dataclass(slots=True)
class SearchLoop:
    """The state between the rounds of one turn."""

    options: SearchOptions
    bounds: Bounds
    known: KnownAddresses
    clock: Callable[[], float] = time.monotonic
    rounds: int = 0
    searches: int = 0
    pages: int = 0
    characters: int = 0
    _last: tuple[tuple[str, str], ...] = ()
    _repeated: bool = False
    _began: float | None = field(default=None)

    def plan(self, calls: Sequence[ToolCall]) -> list[Step]:
        """One step for each call, in order; counts the round."""
        self._began = self.clock() if self._began is None else self._began
        self.rounds += 1
        steps = [self._step(call, place) for place, call in enumerate(calls)]
        asked = tuple((step.call.name, step.argument) for step in steps)
        self._repeated, self._last = asked == self._last, asked
        return steps

    def took(self, characters: int) -> None:
        """Characters that a step's result adds to the conversation."""
        self.characters += characters

    @property
    def over(self) -> bool:
        """Whether the model shall answer now: the next round forbids searching in words."""
        late = self._began is not None and self.clock() - self._began > self.bounds.seconds
        full = self.rounds >= self.bounds.rounds or self.characters >= self.bounds.characters
        return late or full or self._repeated

    @property
    def exhausted(self) -> bool:
        """Whether it called again although searching was over: one round runs without the tools."""
        return self.rounds > self.bounds.rounds or self._repeated and self.rounds > 2

    def _step(self, call: ToolCall, place: int) -> Step:
        try:
            argument = tools.argument(call.name, call.arguments)
        except tools.BadCall as bad:
            return Step(call, error=bad.code, refusal=str(bad))
        if place >= MOST_CALLS:
            return Step(call, argument, error="too_many_requests", refusal="Too many calls at once.")
        return self._search(call, argument) if call.name == tools.SEARCH else self._open(call, argument)

    def _search(self, call: ToolCall, argument: str) -> Step:
        if self.options.most is not None and self.searches >= self.options.most:
            return Step(call, argument, error="max_uses_exceeded", refusal="No more searches are allowed.")
        self.searches += 1
        thorough = self.options.thorough or bool(self.options.allowed)
        sites = self.options.allowed[:MOST_SITES]
        return Step(call, argument, Query(argument, self.options.results, thorough=thorough, sites=sites))

    def _open(self, call: ToolCall, argument: str) -> Step:
        if self.options.most_pages is not None and self.pages >= self.options.most_pages:
            return Step(call, argument, error="max_uses_exceeded", refusal="No more pages may be opened.")
        if not self.known.knows(argument):
            told = "Only addresses from the results or the conversation can be opened."
            return Step(call, argument, error="url_not_in_prior_context", refusal=told)
        if not self.options.permits(argument):
            told = "This address is outside of the allowed domains."
            return Step(call, argument, error="url_not_allowed", refusal=told)
        self.pages += 1
        return Step(call, argument, url=argument)
