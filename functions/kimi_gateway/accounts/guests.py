"""Guests: callers who bring Kimi tokens of their own instead of a key of this gateway.

They have no credits, and the store knows nothing of them. Their requests are counted by token in the memory
of this process; a token is known by its hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.accounts.store import WindowFull
from kimi_gateway.accounts.values import Admission, Key, Limits, Window
from kimi_gateway.dataclass import dataclass

COUNTED = 10_000  # tokens whose requests are counted; the one that was counted longest ago is dropped


@dataclass(frozen=True, slots=True)
class GuestKey(Key):
    """`token_ids` are those of the caller's tokens. After the admission, `counted` is the one whose windows
    have this request."""

    token_ids: tuple[str, ...] = ()
    counted: str = ""


class Guests(Protocol):
    async def key(self, texts: Sequence[str], client: str) -> Key:
        """The key that stands for the tokens in these credentials. Raises InvalidKey, RateLimited, and
        Unavailable if a token cannot be checked."""
        ...

    def admit(self, request: str, key: GuestKey, lease_until: int, now: int) -> Admission:
        """Count the request for one of the tokens. Raises WindowFull."""
        ...


class TokenWindows:
    """Requests of each token in its minute, hour and day. `limits` are those of one token."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._counts = BoundedDict[rules.Counts](COUNTED)

    def has_room(self, token: str, now: int) -> bool:
        return rules.full_window(self.limits, self._now(token, now)) is None

    def count(self, token: str, now: int) -> None:
        self._counts[token] = rules.counted(self._now(token, now))

    def move(self, old: str, new: str, now: int) -> None:
        """Count one request for another token than before."""
        minute, hour, day = self._now(old, now)
        self._counts[old] = (_less(minute), _less(hour), _less(day))
        self.count(new, now)

    def take(self, tokens: Sequence[str], now: int) -> tuple[str, Window | None]:
        """Count one request for the token that has served the fewest in this day. Returns it, and the minute
        window of all tokens together. Raises WindowFull if none has room."""
        free = [token for token in tokens if self.has_room(token, now)]
        if not free:
            full = [rules.full_window(self.limits, self._now(token, now)) for token in tokens]
            raise WindowFull(min((each for each in full if each), key=lambda window: window.reset))
        chosen = min(free, key=lambda token: self._now(token, now)[2].requests)
        self.count(chosen, now)
        minutes = [rules.minute_window(self.limits, self._now(token, now)) for token in tokens]
        return chosen, _together([each for each in minutes if each is not None])

    def _now(self, token: str, now: int) -> rules.Counts:
        return rules.rolled_over(self._counts.get(token, rules.UNCOUNTED), now)


def _less(count: rules.Count) -> rules.Count:
    return count._replace(requests=max(0, count.requests - 1))


def _together(windows: Sequence[Window]) -> Window | None:
    if not windows:
        return None
    limit, left = sum(each.limit for each in windows), sum(each.remaining for each in windows)
    return Window(limit, left, max(each.reset for each in windows), windows[0].size)
