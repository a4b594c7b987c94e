"""Turns the pivot's chunks into output items and their events.

Reasoning and text are open one at a time: the other, or a call, ends them. Calls stay open until the end,
because their fragments may interleave.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses.calls import Call
from kimi_gateway.dialects.responses.emitter import Event, Place
from kimi_gateway.dialects.responses.texts import Message, Reasoning
from kimi_gateway.dialects.responses.tools import Toolbox
from kimi_gateway.dialects.responses.web_search import WebSearch
from kimi_gateway.pivot.chunks import Chunk, Run
from kimi_gateway.pivot.search import SearchCall, SearchChunk, Source

# Why an answer is incomplete: the pivot's finish reasons in the words of `incomplete_details`.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Unnamed:
    """A call without a name so far."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Output:
    """`name` makes the items' ids unique. `sealed`: reasoning is also returned as `encrypted_content`.
    `include` is the client's list of further members."""

    def __init__(
        self, name: str, toolbox: Toolbox, sealed: bool, include: frozenset[str] = frozenset()
    ) -> None:
        self._name = name
        self._toolbox = toolbox
        self._sealed = sealed
        self._events: list[Event] = []
        self._items: list[Reasoning | Message | Call | WebSearch] = []
        self._include = include
        self._searches: dict[str, WebSearch] = {}
        self._sources: dict[str, Source] = {}
        self.searched = 0  # searches and opened pages that succeeded
        self._ended: dict[int, dict[str, Any]] = {}
        self._current: Reasoning | Message | None = None
        self._calls: dict[int, Call] = {}
        self._unnamed: dict[int, _Unnamed] = {}
        self._finish = ""
        self._last: list[Event] | None = None

    @property
    def incomplete(self) -> str | None:
        return _INCOMPLETE.get(self._finish)

    def items(self) -> list[dict[str, Any]]:
        """All items; open ones in their current state, as incomplete."""
        return [self._ended.get(item.place.index) or item.item("incomplete") for item in self._items]

    def add(self, chunk: Chunk) -> list[Event]:
        if isinstance(chunk, SearchChunk):
            self._add_search(chunk.call)
        for choice in chunk.body["choices"]:
            if choice.get("index", 0) == 0:
                self._add_choice(choice)
        told, self._events[:] = self._events[:], []
        return told

    def add_run(self, run: Run) -> list[Event]:
        """As `add` with each of its chunks, some of whose events are one."""
        if run.template.index == 0:
            first, *others = run.texts
            if run.template.name == "reasoning_content":
                reasoning = self._reasoning()
                reasoning.add(first)
                reasoning.add_each(others)
            else:
                kind = "refusal" if run.template.name == "refusal" else "output_text"
                message = self._message()
                message.add(kind, first, [])
                message.add_each(kind, others)
        told, self._events[:] = self._events[:], []
        return told

    def end(self) -> list[Event]:
        """The last events, after the last chunk. Returns the same events each time."""
        if self._last is None:
            status = "incomplete" if self.incomplete else "completed"
            for index in sorted(self._unnamed):
                self._begin_call(index, self._unnamed[index])
            if not self._items:
                self._message().add("output_text", "", [])  # clients expect one
            for item in self._items:
                if item.place.index not in self._ended:
                    self._end_item(item, status)
            self._last, self._events = self._events, []
        return self._last

    def _add_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        if reasoning := delta.get("reasoning_content"):
            self._reasoning().add(reasoning)
        if text := delta.get("content"):
            self._message().add("output_text", text, _logprobs(choice))
        if refusal := delta.get("refusal"):
            self._message().add("refusal", refusal, [])
        for fragment in delta.get("tool_calls") or ():
            self._add_call(fragment)
        self._finish = choice.get("finish_reason") or self._finish

    def _add_search(self, call: SearchCall) -> None:
        self._end_current()
        item = self._searches.get(call.id)
        if item is None:
            item = self._searches[call.id] = WebSearch(self._place("ws"), call, self._include)
            self._items.append(item)
        if call.done:
            item.done(call)
            self.searched += call.error is None
            if call.kind == "search":
                self._sources |= {each.url: each for each in call.sources if each.url not in self._sources}
            self._end_item(item, "completed")

    def _reasoning(self) -> Reasoning:
        if not isinstance(self._current, Reasoning):
            self._end_current()
            self._current = Reasoning(self._place("rs"), self._sealed)
            self._items.append(self._current)
        return self._current

    def _message(self) -> Message:
        if not isinstance(self._current, Message):
            self._end_current()
            self._current = Message(self._place("msg"), list(self._sources.values()))
            self._items.append(self._current)
        return self._current

    def _add_call(self, fragment: dict[str, Any]) -> None:
        index, function = fragment["index"], fragment.get("function") or {}
        arguments = function.get("arguments") or ""
        call = self._calls.get(index)
        if call is not None:
            call.add(arguments)
            return
        begun = self._unnamed.setdefault(index, _Unnamed())
        begun.id = fragment.get("id") or begun.id
        begun.name = function.get("name") or begun.name
        begun.arguments.append(arguments)
        if begun.name:
            self._begin_call(index, self._unnamed.pop(index))

    def _begin_call(self, index: int, begun: _Unnamed) -> None:
        self._end_current()
        known = self._toolbox.known(begun.name)
        place = self._place("ctc" if known.custom else "fc")
        call = self._calls[index] = Call(place, begun.id or f"call_{self._name}_{place.index}", known)
        self._items.append(call)
        call.add("".join(begun.arguments))

    def _place(self, prefix: str) -> Place:
        index = len(self._items)
        return Place(f"{prefix}_{self._name}_{index}", index, self._events)

    def _end_current(self) -> None:
        if self._current is not None:
            self._end_item(self._current, "completed")
            self._current = None

    def _end_item(self, item: Reasoning | Message | Call | WebSearch, status: str) -> None:
        item.end(status)
        self._ended[item.place.index] = item.item(status)


def _logprobs(choice: dict[str, Any]) -> list[Any]:
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    return entries if isinstance(entries, list) else []
