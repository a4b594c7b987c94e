"""Empty answers that are not charged: five an hour for a key; more are charged like others.

Counted in the memory of each process, against clients that cause empty answers again and again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import field

from kimi_gateway.dataclass import dataclass

AN_HOUR = 5
HOUR = 3600
MOST_KEYS = 10_000


@dataclass(slots=True)
class Pardons:
    clock: Callable[[], float] = time.time
    _given: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)  # by key: hour, number

    def __call__(self, key: str) -> bool:
        """Whether this answer is free; counts it."""
        hour = int(self.clock()) // HOUR
        began, given = self._given.pop(key, (hour, 0))
        given = given if began == hour else 0
        self._given[key] = hour, min(given + 1, AN_HOUR)
        if len(self._given) > MOST_KEYS:
            self._given.popitem(last=False)
        return given < AN_HOUR
