"""Counts of events of the store in memory."""

from __future__ import annotations


class MemoryTallies:
    def __init__(self) -> None:
        self._tallies: dict[str, tuple[int, int]] = {}  # by name: events, until

    async def tally(self, name: str, most: int, until: int, now: int) -> bool:
        self._tallies = {each: known for each, known in self._tallies.items() if known[1] > now}
        count, _ = self._tallies.get(name, (0, 0))
        if count >= most:
            return False
        self._tallies[name] = (count + 1, until)
        return True
