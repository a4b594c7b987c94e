"""Limits by name, in one process: what guards the calls that cost no write in the store."""

from __future__ import annotations

from collections import OrderedDict, deque


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


class Recent:
    """Each name may call `most` times in any span of so many `seconds`."""

    def __init__(self, most: int, seconds: float, names: int = 10_000) -> None:
        self._most, self._seconds, self._names = most, seconds, names
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """0 and one taken, or the seconds until one may be."""
        calls = self._calls.pop(name, None) or deque(maxlen=self._most)
        self._calls[name] = calls
        wait = calls[0] + self._seconds - now if len(calls) == self._most else 0.0
        if wait <= 0:
            calls.append(now)
        if len(self._calls) > self._names:
            self._calls.popitem(last=False)
        return max(wait, 0.0)
