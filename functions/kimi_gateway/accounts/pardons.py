"""Answers of nothing that a key is not charged for: five an hour, then they cost what others cost.

Counted where the process runs, in memory: the bound is against a client that asks for nothing over and over.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

AN_HOUR = 5
HOUR = 3600
MOST_KEYS = 10_000


@dataclass(slots=True)
class Pardons:
    clock: Callable[[], float] = time.time
    _given: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)  # by key: hour, number

    def __call__(self, key: str) -> bool:
        """Whether this one is free; it counts as given."""
        hour = int(self.clock()) // HOUR
        began, given = self._given.pop(key, (hour, 0))
        given = given if began == hour else 0
        self._given[key] = hour, min(given + 1, AN_HOUR)
        if len(self._given) > MOST_KEYS:
            self._given.popitem(last=False)
        return given < AN_HOUR
