"""The rounds of a turn that searches: the model asks, the gateway searches, the model goes on.

A search beside a call of the client's own tools runs too. The client has the next word, and the results are
kept for its next request (flow/search/replay.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import BudgetExceeded, ContextLengthExceeded
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attempts import UpstreamCall
from kimi_gateway.flow.rounds import Opening
from kimi_gateway.flow.search.addresses import KnownAddresses
from kimi_gateway.flow.search.loop import Bounds, SearchLoop
from kimi_gateway.flow.search.round import RoundReader
from kimi_gateway.flow.search.runner import Searching
from kimi_gateway.pivot.call_ids import vendors
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.search import SearchCall, SearchChunk, SearchOptions
from kimi_gateway.providers.search import Searches

ENOUGH = "\n\nDo not search or open pages any more. Answer now with what you have."
RESEARCH = 3  # times the bounds of a search


@dataclass(slots=True)
class SearchPlanner:
    """See flow.rounds.Planner."""

    opening: Opening
    searching: Searching
    _chat: ChatRequest = field(init=False)
    _reader: RoundReader = field(default_factory=RoundReader)
    _unread: bool = True
    _added: int = 0  # bytes, about
    _searched: list[tuple[str, str, str]] = field(default_factory=list)  # names, arguments and results

    def __post_init__(self) -> None:
        self._chat = self.opening.chat

    def shown(self, chunks: list[Chunk]) -> list[Chunk]:
        return self._reader.read(chunks)

    async def next(self) -> Sequence[UpstreamCall]:
        reader, calls = self._reader, self._reader.calls
        if self._chat.search is None or not calls:
            return await self._last()
        if self._unread:  # the addresses of the conversation, when they are first needed
            self._unread = False
            messages = self._chat.body["messages"]
            await apart(self.opening.size, lambda: self.searching.loop.known.read(messages))
        results = await self.searching.run(calls, self._show)
        told = zip(calls, results, strict=True)
        self._searched += [(call.name, call.arguments, result["content"]) for call, result in told]
        if reader.clients:
            return await self._last()
        if self.searching.loop.over and results:
            results[-1]["content"] += ENOUGH
        asked = _asked(self._reader.message)
        for result in results:
            result["tool_call_id"] = vendors(result["tool_call_id"])
        added = [asked, *results]
        messages = [*self._chat.body["messages"], *added]
        search = None if self.searching.loop.exhausted else self._chat.search
        self._chat = replace(self._chat, body={**self._chat.body, "messages": messages}, search=search)
        self._reader = RoundReader()
        self._added += sum(len(str(message)) for message in added)
        return await self._asked_again()

    async def _last(self) -> Sequence[UpstreamCall]:
        """The end of the turn. If the client has calls to run, the searches wait for its next request."""
        clients = self._reader.clients
        if clients and self._searched and not self._chat.evident:
            from kimi_gateway.flow.search import replay  # few turns need it

            searched = [replay.Searched(*each) for each in self._searched]
            self.opening.kept.update(replay.kept(self.opening.asked, clients[0], searched))
        await self.opening.show(self._reader.end())
        return ()

    async def _asked_again(self) -> Sequence[UpstreamCall]:
        """The next round. If it does not fit into the budgets, the window or the key's tokens, one without
        tools; if what was found is too much for that too, the question alone, for which there is room."""
        try:
            return await self.opening.ask(self._chat, self._added)
        except (BudgetExceeded, ContextLengthExceeded):
            if self._chat.search is not None:
                self._chat = replace(self._chat, search=None)
                return await self._asked_again()
        self._chat = replace(self.opening.chat, search=None)
        return await self.opening.ask(self._chat, 0)

    async def _show(self, call: SearchCall) -> None:
        await self.opening.show([SearchChunk(call)])


def _asked(message: dict[str, Any]) -> dict[str, Any]:
    """The model's message as it stands in the conversation, with the vendor's own ids."""
    calls = [{**call, "id": vendors(str(call.get("id") or ""))} for call in message["tool_calls"]]
    kept = {name: message[name] for name in ("role", "reasoning_content") if message.get(name)}
    return {**kept, "content": message.get("content") or "", "tool_calls": calls}


def plan(bounds: Bounds, opening: Opening) -> SearchPlanner | None:
    """The planner of a request that searches; None where it does not, or where the provider cannot."""
    chat, upstream = opening.chat, opening.upstream
    if chat.search is None or not isinstance(upstream.provider, Searches):
        return None
    loop = SearchLoop(chat.search, _bounds(bounds, chat.search), KnownAddresses())
    return SearchPlanner(
        opening, Searching(loop, upstream.provider.web, upstream.tokens, opening.allowance())
    )


def _bounds(bounds: Bounds, options: SearchOptions) -> Bounds:
    if not options.research:
        return bounds
    return Bounds(bounds.rounds * RESEARCH, bounds.seconds * RESEARCH, bounds.characters * RESEARCH)
