"""Finds stop strings that are too long for the upstream."""

from __future__ import annotations

from typing import Any

from kimi_gateway.pivot.chunks import Chunk


class _Search:
    """Searches one stop string with the Knuth–Morris–Pratt algorithm, so the work is linear in the text,
    however the text repeats the beginning of the string and however it is split."""

    __slots__ = ("_back", "matched", "stop")

    def __init__(self, stop: str, back: list[int]) -> None:
        self.stop = stop
        self.matched = 0  # characters of `stop` that the text ends with so far
        self._back = back

    def feed(self, text: str) -> int:
        """The index in `text` behind the string's end; -1 if it is not found."""
        stop, back, matched = self.stop, self._back, self.matched
        place = 0
        while place < len(text):
            if not matched:
                place = text.find(stop[0], place)
                if place < 0:
                    break
            while matched and text[place] != stop[matched]:
                matched = back[matched - 1]
            matched += text[place] == stop[matched]
            place += 1
            if matched == len(stop):
                self.matched = 0
                return place
        self.matched = matched
        return -1


def _table(stop: str) -> list[int]:
    """For each position in `stop`, the length of the longest proper prefix that ends there."""
    back = [0] * len(stop)
    length = 0
    for index in range(1, len(stop)):
        while length and stop[index] != stop[length]:
            length = back[length - 1]
        length += stop[index] == stop[length]
        back[index] = length
    return back


class StopFinder:
    """Takes text as it comes and returns what may be shown: never a part of a stop string, not even its
    beginning. `tables` come from another finder of the same stop strings."""

    def __init__(self, stops: tuple[str, ...], tables: list[list[int]] | None = None) -> None:
        self.tables = [_table(stop) for stop in stops] if tables is None else tables
        self._searches = [_Search(stop, back) for stop, back in zip(stops, self.tables, strict=True)]
        self._held = ""
        self.hit = ""  # the stop string that was found

    @property
    def found(self) -> bool:
        return bool(self.hit)

    def feed(self, text: str) -> str:
        """The text that may be shown now; after a hit (`found`) the text before it, then nothing."""
        if self.found:
            return ""
        before, ends = len(self._held), [(search.feed(text), search.stop) for search in self._searches]
        text = self._held + text
        hits = [(before + end, before + end - len(stop), stop) for end, stop in ends if end >= 0]
        if hits:  # the one that ends first, however the text was split
            _, place, self.hit = min(hits)
            self._held = ""
            return text[:place]
        keep = max(search.matched for search in self._searches)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Text that was held back and is not a stop string."""
        held, self._held = self._held, ""
        for search in self._searches:
            search.matched = 0
        return held


class StopFilter:
    """Applies a finder to each choice of a stream. A hit ends the choice with the finish reason `stop`;
    `stop_reason` (vLLM's name for it) is the string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._tables: list[list[int]] | None = None
        self._finders: dict[int, StopFinder] = {}

    @property
    def found_all(self) -> bool:
        return bool(self._finders) and all(finder.found for finder in self._finders.values())

    def apply(self, chunk: Chunk) -> Chunk | None:
        """The chunk with the text that may be shown; None if nothing is left."""
        kept = [choice for choice in map(self._choice, chunk.body["choices"]) if choice is not None]
        if not kept:
            return None
        finishes = any(choice.get("finish_reason") for choice in kept)
        substance = chunk.substance and any(map(_has_substance, kept))
        return Chunk({**chunk.body, "choices": kept}, substance, finishes)

    def rest(self) -> Chunk | None:
        """At `[DONE]`: text held back in choices that ended without a finish reason."""
        choices = [
            {"index": index, "delta": {"content": text}, "finish_reason": None}
            for index, finder in self._finders.items()
            if (text := finder.rest())
        ]
        return Chunk({"choices": choices}, True, False) if choices else None

    def _finder(self, index: int) -> StopFinder:
        finder = self._finders.get(index)
        if finder is None:
            finder = self._finders[index] = StopFinder(self._stops, self._tables)
            self._tables = finder.tables
        return finder

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        finder = self._finder(choice.get("index", 0))
        if finder.found:
            return None
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        shown = finder.feed(text)
        if finder.found:
            choice = {**choice, "finish_reason": "stop", "stop_reason": finder.hit}
        elif choice.get("finish_reason") or delta.get("tool_calls"):  # a call ends the text before it
            shown += finder.rest()
        if shown != text:
            choice = {**choice, "delta": {**delta, "content": shown}}
            if "logprobs" in choice:  # they would spell out the stop string
                choice["logprobs"] = None
        return choice


def _has_substance(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason")) or any(
        delta.get(name) for name in ("content", "reasoning_content", "refusal", "tool_calls")
    )
