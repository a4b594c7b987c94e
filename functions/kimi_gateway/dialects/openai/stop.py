"""Stop strings found by the gateway, for those that are too long for the upstream."""

from __future__ import annotations

from typing import Any

from kimi_gateway.dialects.openai.chunks import Chunk


class StopFinder:
    """Fed with text as it comes, gives what may be shown: never any of a stop string, not even its start."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops))
        self._held = ""
        self.hit = ""  # the stop string that was found

    @property
    def found(self) -> bool:
        return bool(self.hit)

    def feed(self, text: str) -> str:
        """What is safe to show now; after a hit (`found`) the text before it, then nothing."""
        if self.found:
            return ""
        text = self._held + text
        hits = [(place + len(stop), place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if hits:  # of several the one that ends first, however the text was split
            _, place, self.hit = min(hits)
            self._held = ""
            return text[:place]
        keep = self._unfinished(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held

    def _unfinished(self, text: str) -> int:
        """The length of the longest end of `text` that may be the start of a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


class StopFilter:
    """Applies a finder to each choice of a stream: a hit ends the choice with the reason `stop`, and
    `stop_reason` (vLLM's name for it) says which string it was."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
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

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        finder = self._finders.setdefault(choice.get("index", 0), StopFinder(self._stops))
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
