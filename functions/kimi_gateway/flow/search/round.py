"""Splits one round's chunks: those that the client sees, and calls that the gateway runs itself.

The client gets texts and reasoning as they come. Calls of the gateway's tools, and the end of a round that
another one follows, are not for it. Its own calls are numbered as if the others were not there.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from kimi_gateway.flow.search.loop import ToolCall
from kimi_gateway.flow.search.tools import NAMES
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.collect import Collector


class RoundReader:
    """Reads one choice; a request that searches has only one."""

    def __init__(self) -> None:
        self._collector = Collector()
        self._ours: set[int] = set()
        self._places: dict[int, int] = {}  # of the client's own calls, as it sees them
        self._unnamed: dict[int, list[dict[str, Any]]] = {}  # fragments of calls whose name has not come
        self._held: list[Chunk] = []  # from the finish reason on

    def read(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks that the client may see now."""
        shown = []
        for chunk in chunks:
            self._collector.add(chunk)
            if self._held or chunk.finishes:
                self._held.append(chunk)
            elif seen := self._seen(chunk):
                shown.append(seen)
        return shown

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of the gateway's tools, in order. Read it after the last chunk."""
        return [
            ToolCall(str(call.get("id") or ""), function["name"], function.get("arguments") or "")
            for call in self.message.get("tool_calls") or ()
            if (function := call.get("function") or {}).get("name") in NAMES
        ]

    @property
    def clients(self) -> list[dict[str, Any]]:
        """The calls of the client's own tools: with them it has the next word. After the last chunk."""
        calls = self.message.get("tool_calls") or ()
        return [call for call in calls if (call.get("function") or {}).get("name") not in NAMES]

    @cached_property
    def message(self) -> dict[str, Any]:
        """The round as a message of the conversation, reasoning and all. After the last chunk."""
        choices = self._collector.answer()["choices"]
        message: dict[str, Any] = choices[0]["message"] if choices else {"role": "assistant"}
        return message

    def end(self) -> list[Chunk]:
        """The rest of the last round. If the client sees none of its calls, the model is done."""
        rest = [seen for chunk in self._held if (seen := self._seen(chunk))]
        self._held.clear()
        if self._ours and not self._places:
            return [_stopped(chunk) for chunk in rest]
        return rest

    def _seen(self, chunk: Chunk) -> Chunk | None:
        choices, changed = [], False
        for choice in chunk.body["choices"]:
            delta = choice.get("delta") or {}
            kept = delta
            if delta.get("tool_calls"):
                kept = {name: value for name, value in kept.items() if name != "tool_calls"}
                if shown := self._of_client(delta["tool_calls"]):
                    kept["tool_calls"] = shown
            changed |= kept is not delta
            if kept or choice.get("finish_reason"):
                choices.append(choice if kept is delta else {**choice, "delta": kept})
        if not changed:
            return chunk
        return Chunk({**chunk.body, "choices": choices}, chunk.substance, chunk.finishes) if choices else None

    def _of_client(self, fragments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        for fragment in fragments:
            index, name = fragment["index"], (fragment.get("function") or {}).get("name")
            if index in self._ours or name in NAMES:
                self._ours.add(index)
                self._unnamed.pop(index, None)
            elif index in self._places:
                shown.append({**fragment, "index": self._places[index]})
            elif not name:
                self._unnamed.setdefault(index, []).append(fragment)
            else:
                place = self._places[index] = len(self._places)
                early = self._unnamed.pop(index, [])
                shown += [{**each, "index": place} for each in (*early, fragment)]
        return shown


def _stopped(chunk: Chunk) -> Chunk:
    choices = [
        {**choice, "finish_reason": "stop"} if choice.get("finish_reason") == "tool_calls" else choice
        for choice in chunk.body["choices"]
    ]
    return Chunk({**chunk.body, "choices": choices}, chunk.substance, chunk.finishes)
