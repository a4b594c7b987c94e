"""Stop strings found by the gateway, for those that are too long for the upstream."""

from __future__ import annotations

from typing import Any

from kimi_gateway.pivot.chunks import Chunk


class _Search:
    """One stop string, looked for by Knuth, Morris and Pratt: the work grows with the text alone, however the
    text repeats the string's beginning and however it is split."""

    __slots__ = ("_back", "matched", "stop")

    def __init__(self, stop: str, back: list[int]) -> None:
        self.stop = stop
        self.matched = 0  # characters of `stop` that the text so far ends with
        self._back = back

    def feed(self, text: str) -> int:
        """Where in `text` the string's end is, as the index behind it; -1 for nowhere."""
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
    """For each place in `stop`, the longest shorter beginning of it that ends there."""
    back = [0] * len(stop)
    length = 0
    for index in range(1, len(stop)):
        while length and stop[index] != stop[length]:
            length = back[length - 1]
        length += stop[index] == stop[length]
        back[index] = length
    return back


class StopFinder:
    """Fed with text as it comes, gives what may be shown: never any of a stop string, not even its start.

    `tables` come from another finder of the same stop strings.
    """

    def __init__(self, stops: tuple[str, ...], tables: list[list[int]] | None = None) -> None:
        self.tables = [_table(stop) for stop in stops] if tables is None else tables
        self._searches = [_Search(stop, back) for stop, back in zip(stops, self.tables, strict=True)]
        self._held = ""
        self.hit = ""  # the stop string that was found

    @property
    def found(self) -> bool:
        return bool(self.hit)

    def feed(self, text: str) -> str:
        """What is safe to show now; after a hit (`found`) the text before it, then nothing."""
        if self.found:
            return ""
        before, ends = len(self._held), [(search.feed(text), search.stop) for search in self._searches]
        text = self._held + text
        hits = [(before + end, before + end - len(stop), stop) for end, stop in ends if end >= 0]
        if hits:  # of several the one that ends first, however the text was split
            _, place, self.hit = min(hits)
            self._held = ""
            return text[:place]
        keep = max(search.matched for search in self._searches)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        for search in self._searches:
            search.matched = 0
        return held


class StopFilter:
    """Applies a finder to each choice of a stream: a hit ends the choice with the reason `stop`, and
    `stop_reason` (vLLM's name for it) says which string it was."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._tables: list[list[int]] | None = None
        self._finders: dict[int, StopFinder] = {}

    @property
    def found_all(self) -> bool:
        return bool(self._finders) and all(finder.found for finder in self._finders.values())

    def apply(self, chunk: Chunk) -> Chunk | None:
        """The chunk with what may be shown of it; None where nothing is left."""
        kept = [choice for choice in map(self._choice, chunk.body["choices"]) if choice is not None]
        if not kept:
            return None
        finishes = any(choice.get("finish_reason") for choice in kept)
        substance = chunk.substance and any(map(_has_substance, kept))
        return Chunk({**chunk.body, "choices": kept}, substance, finishes)

    def rest(self) -> Chunk | None:
        """At `[DONE]`: what is still held back of choices that ended without a finish reason."""
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
            if "logprobs" in choice:  # they spell the text once more
                choice["logprobs"] = None
        return choice


def _has_substance(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason")) or any(
        delta.get(name) for name in ("content", "reasoning_content", "refusal", "tool_calls")
    )
