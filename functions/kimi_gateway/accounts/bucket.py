"""Rate limits by name in one process, for calls that cost no write in the store."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TypeVar

T = TypeVar("T")


class BoundedDict(OrderedDict[str, T]):
    """A dict with at most `most` entries; the one that was set longest ago is dropped."""

    def __init__(self, most: int = 10_000) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, name: str, value: T) -> None:
        super().__setitem__(name, value)
        self.move_to_end(name)
        if len(self) > self._most:
            self.popitem(last=False)


class Buckets:
    """Token buckets: each name may call `burst` times at once and `rate` times a second after that."""

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate, self._burst = rate, burst
        self._levels = BoundedDict[tuple[float, float]](most)

    def take(self, name: str, now: float) -> float:
        """Take one call and return 0, or return the seconds until one is available."""
        level = self._level(name, now)
        wait = self._wait(level)
        self._levels[name] = (level if wait else level - 1, now)
        return wait

    def wait(self, name: str, now: float) -> float:
        """Seconds until one call is available; takes none."""
        return self._wait(self._level(name, now)) if name in self._levels else 0.0

    def give_back(self, name: str, now: float) -> None:
        """Return a call that was taken and turned out to be free."""
        self._levels[name] = (min(self._burst, self._level(name, now) + 1), now)

    def spend(self, name: str, now: float, calls: float) -> None:
        """Take calls that have already happened; the level falls to minus one burst at most."""
        self._levels[name] = (max(self._level(name, now) - calls, -self._burst), now)

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + max(0.0, now - at) * self._rate)

    def _wait(self, level: float) -> float:
        return 0.0 if level >= 1 else (1 - level) / self._rate


class SlidingWindow:
    """Each name may call `most` times in any `seconds`."""

    def __init__(self, most: int, seconds: float, names: int = 10_000) -> None:
        self._most, self._seconds = most, seconds
        self._calls = BoundedDict[deque[float]](names)

    def take(self, name: str, now: float) -> float:
        """Take one call and return 0, or return the seconds until one is available."""
        calls = self._calls.get(name) or deque(maxlen=self._most)
        self._calls[name] = calls
        wait = calls[0] + self._seconds - now if len(calls) == self._most else 0.0
        if wait <= 0:
            calls.append(now)
        return max(wait, 0.0)
