"""Runs the search calls of a round: asks the provider, and writes what the model and the client get of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.search import evidence
from kimi_gateway.flow.search.loop import SearchLoop, Step, ToolCall
from kimi_gateway.flow.search.tools import SEARCH
from kimi_gateway.observe import emit
from kimi_gateway.pivot.search import ErrorCode, Kind, SearchCall, Source
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Tokens
from kimi_gateway.providers.search import Page, Query, Reason, Result, Search, SearchFailed

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
    "unavailable": "The search failed.",
}


@dataclass(slots=True)
class Searching:
    """The searches of one turn. `bill` gets the name of each call that the provider wants money for."""

    loop: SearchLoop
    search: Search
    tokens: Tokens
    bill: Callable[[str], None]
    numbers: dict[str, int] = field(default_factory=dict)  # of the pages in the answer, by address
    _calls: int = 0

    async def run(
        self, calls: Sequence[ToolCall], show: Callable[[SearchCall], Awaitable[None]]
    ) -> list[dict[str, Any]]:
        """Runs the calls of a round at the same time. `show` gets each as it begins and ends. Returns the
        tools' messages in order. The model sees the error of a failed search."""
        steps = self.loop.plan(calls)
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
        page: Page = await self._leased(lambda token: self.search.open_page(url, token))
        self.bill("fetch")
        text = await apart(len(page.text), lambda: evidence.of_page(page))
        shown = evidence.cleaned(page.text, LONGEST_SHOWN)
        return text, [Source(url, evidence.cleaned(page.title, evidence.LONGEST_TITLE), text=shown)]

    async def _asked(self, query: Query) -> list[Result]:
        results: list[Result] = await self._leased(lambda token: self.search.search(query, token))
        if results:
            self.bill("search_pro" if query.thorough else "search")
        return results

    async def _leased(self, ask: Callable[[Any], Any]) -> Any:
        """By one token of the pool; a search that fails puts no token out, since its limits are others."""
        try:
            lease = await self.tokens.lease(None, set())
        except UpstreamFailure as failure:
            raise SearchFailed("unavailable", failure.detail) from failure
        try:
            return await ask(lease.token)
        finally:
            lease.end()


def _source(result: Result) -> Source:
    text = "\n".join(filter(None, (result.snippet, *result.passages)))
    return Source(
        result.url,
        evidence.cleaned(result.title, evidence.LONGEST_TITLE).replace("\n", " "),
        evidence.cleaned(result.date, 40),
        evidence.cleaned(text, LONGEST_SHOWN),
    )
