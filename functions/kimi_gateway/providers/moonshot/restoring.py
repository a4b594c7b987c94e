"""Restores the client's names of tools and arguments in an answer's calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.providers.moonshot.argument_names import Keys


@dataclass(frozen=True, slots=True)
class Renamed:
    """`tools`: the client's names by the sent names. `arguments`: sent names of tools with renamed properties
    (argument_names.py)."""

    tools: Mapping[str, str] = field(default_factory=dict)
    arguments: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.tools or self.arguments)


class Restorer:
    """Takes an answer's chunks as they come and changes them."""

    def __init__(self, renamed: Renamed) -> None:
        self._renamed = renamed
        self._keys: dict[tuple[int, int], Keys] = {}  # for calls with renamed properties, by choice and index

    def add(self, chunks: list[Chunk]) -> None:
        for at, chunk in enumerate(chunks):
            if any([self._restore(choice) for choice in chunk.body["choices"]]):
                chunks[at] = Chunk(chunk.body, chunk.substance, chunk.finishes)

    def kept(self) -> dict[str, bytes]:
        return {}

    def _restore(self, choice: dict[str, Any]) -> bool:
        delta, place = choice.get("delta") or {}, choice.get("index", 0)
        changed = False
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            name, text = function.get("name"), function.get("arguments")
            at = (place, call.get("index", 0))
            if isinstance(name, str) and name in self._renamed.arguments:
                self._keys.setdefault(at, Keys())
            if isinstance(name, str) and name in self._renamed.tools:
                function["name"] = self._renamed.tools[name]
                changed = True
            if isinstance(text, str) and at in self._keys:
                function["arguments"] = self._keys[at].add(text)
                changed |= function["arguments"] != text
        if self._keys and choice.get("finish_reason"):
            changed |= self._finish(choice, place)
        return changed

    def _finish(self, choice: dict[str, Any], place: int) -> bool:
        """Add text that was held back in calls that were cut."""
        rests = {at: rest for at, keys in self._keys.items() if at[0] == place and (rest := keys.rest())}
        if not rests:
            return False
        delta = choice.get("delta") or {}
        more = [{"index": index, "function": {"arguments": rest}} for (_, index), rest in rests.items()]
        choice["delta"] = {**delta, "tool_calls": [*(delta.get("tool_calls") or ()), *more]}
        return True
