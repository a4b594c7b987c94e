"""Runs the search calls of a round: asks the provider, and writes what the model and the client get of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, TypeVar

from kimi_gateway.dataclass import dataclass
from kimi_gateway.flow.allowance import Allowance
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.search import evidence
from kimi_gateway.flow.search.loop import SearchLoop, Step, ToolCall, tool_of
from kimi_gateway.flow.search.tools import SEARCH
from kimi_gateway.observe import emit
from kimi_gateway.pivot.search import ErrorCode, Kind, SearchCall, Source
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Lease, Token, Tokens
from kimi_gateway.providers.search import Page, Query, Reason, Result, Search, SearchFailed

NO_BUDGET = "The budget leaves nothing for it. Answer with what you have."
T = TypeVar("T")
MOST_TOKENS = 3  # that one search tries
_OF_TOKEN: Collection[Reason] = ("token", "rate")
LONGEST_SHOWN = 4_000  # characters of a page's text that a client gets as evidence
# What a failed search is called in each of the two tools.
_SEARCH_ERRORS: Mapping[Reason, ErrorCode] = {"invalid": "invalid_tool_input", "rate": "too_many_requests"}
_PAGE_ERRORS: Mapping[Reason, ErrorCode] = {
    "invalid": "url_not_accessible",
    "refused_address": "url_not_allowed",
    "no_text": "unsupported_content_type",
    "rate": "too_many_requests",
}
_TOLD: Mapping[Reason, str] = {
    "invalid": "The search was refused as it is worded.",
    "refused_address": "This page may not be opened.",
    "no_text": "This page has no text that can be read.",
    "rate": "Too many searches run at this moment.",
    "token": "The search failed.",
    "unavailable": "The search failed.",
}


@dataclass(slots=True)
class Searching:
    """The searches of one turn. `allowance` decides which of them may run, and notes what they cost."""

    loop: SearchLoop
    search: Search
    tokens: Tokens
    allowance: Allowance
    numbers: dict[str, int] = field(default_factory=dict)  # of the pages in the answer, by address
    _calls: int = 0

    async def run(
        self, calls: Sequence[ToolCall], show: Callable[[SearchCall], Awaitable[None]]
    ) -> list[dict[str, Any]]:
        """Runs the calls of a round at the same time. `show` gets each as it begins and ends. Returns the
        tools' messages in order. The model sees the error of a failed search."""
        steps = await self._affordable(self.loop.plan(calls))
        begun = [self._begun(step) for step in steps]
        for call in begun:
            await show(call)
        pairs = zip(steps, begun, strict=True)
        texts = await asyncio.gather(*(self._one(step, call, show) for step, call in pairs))
        for text in texts:
            self.loop.took(len(text))
        return [
            {"role": "tool", "tool_call_id": step.call.id, "content": text}
            for step, text in zip(steps, texts, strict=True)
        ]

    async def _affordable(self, steps: list[Step]) -> list[Step]:
        """The steps, with those refused that the budgets do not pay for."""
        tools = [step.tool for step in steps if step.tool is not None]
        runs = await self.allowance.afford_tools(tools)
        decided = []
        for step in steps:
            if step.tool is not None:
                runs -= 1
                if runs < 0:
                    step = replace(step, query=None, url=None, error="max_uses_exceeded", refusal=NO_BUDGET)
            decided.append(step)
        return decided

    def _begun(self, step: Step) -> SearchCall:
        self._calls += 1
        kind: Kind = "search" if step.call.name == SEARCH else "open_page"
        return SearchCall(str(self._calls), kind, step.argument)

    async def _one(self, step: Step, call: SearchCall, show: Callable[[SearchCall], Awaitable[None]]) -> str:
        if step.error is not None:
            await show(replace(call, done=True, error=step.error))
            return step.refusal
        try:
            if step.query is not None:
                text, sources = await self._searched(step.query)
            else:
                text, sources = await self._opened(step.url or "")
        except SearchFailed as failed:
            emit("search_failed", logging.WARNING, cause=failed.reason, detail=failed.detail)
            errors = _SEARCH_ERRORS if call.kind == "search" else _PAGE_ERRORS
            await show(replace(call, done=True, error=errors.get(failed.reason, "unavailable")))
            return _TOLD[failed.reason]
        await show(replace(call, done=True, sources=sources))
        return text

    async def _searched(self, query: Query) -> tuple[str, list[Source]]:
        results = await self._asked(query)
        allowed = [each for each in results if self.loop.options.permits(each.url)]
        self.loop.known.add(each.url for each in allowed)
        numbers = [self.numbers.setdefault(each.url, len(self.numbers) + 1) for each in allowed]
        size = sum(len(each.snippet) + sum(map(len, each.passages)) for each in allowed)
        text = await apart(size, lambda: evidence.of_results(allowed, numbers))
        return text, await apart(size, lambda: [_source(each) for each in allowed])

    async def _opened(self, url: str) -> tuple[str, list[Source]]:
        def ask(token: Token) -> Awaitable[Page]:
            return self.search.open_page(url, token)

        page = await self._leased("fetch", ask, lambda page: True)
        text = await apart(len(page.text), lambda: evidence.of_page(page))
        shown = evidence.cleaned(page.text, LONGEST_SHOWN)
        return text, [Source(url, evidence.cleaned(page.title, evidence.LONGEST_TITLE), text=shown)]

    async def _asked(self, query: Query) -> list[Result]:
        def ask(token: Token) -> Awaitable[list[Result]]:
            return self.search.search(query, token)

        return await self._leased(tool_of(query), ask, bool)

    async def _leased(
        self, tool: str, ask: Callable[[Token], Awaitable[T]], counts: Callable[[T], bool]
    ) -> T:
        """By a token of the pool, and by another one where the first has no right to search or too many
        searches. That puts no token out, since the limits of searches are others than those of chats.
        `counts`: whether the upstream wants money for this answer."""
        tried: set[str] = set()
        while True:
            lease = await self._lease(tried)
            tried.add(lease.token.id)
            billed: bool | None = None
            self.allowance.begin(tool)
            try:
                found = await ask(lease.token)
                billed = counts(found)
                return found
            except SearchFailed as failed:
                billed = failed.billed
                if failed.reason not in _OF_TOKEN or len(tried) >= MOST_TOKENS:
                    raise
                if not await self.tokens.another(tried, ""):
                    raise
            finally:
                lease.end()
                self.allowance.end(tool, billed)

    async def _lease(self, tried: set[str]) -> Lease:
        try:
            return await self.tokens.lease(None, tried)
        except UpstreamFailure as failure:
            raise SearchFailed("unavailable", failure.detail) from failure


def _source(result: Result) -> Source:
    text = "\n".join(filter(None, (result.snippet, *result.passages)))
    return Source(
        result.url,
        evidence.cleaned(result.title, evidence.LONGEST_TITLE).replace("\n", " "),
        evidence.cleaned(result.date, 40),
        evidence.cleaned(text, LONGEST_SHOWN),
    )
