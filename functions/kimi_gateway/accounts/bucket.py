"""A token bucket by name, in one process: what guards the calls that cost no write in the store."""

from __future__ import annotations

from collections import OrderedDict


class Buckets:
    """Each name may call `burst` times at once and `rate` times a second after that."""

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """0 and one taken, or the seconds until one may be."""
        level, at = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._rate)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._levels[name] = (level if wait else level - 1, now)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return wait
