"""Bad news of upstream tokens: what each failure puts out, for how long, and the record that processes share.

Only bad news is shared, and its end. Rules: docs/reliability.md, Tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kimi_gateway.providers.failures import UpstreamFailure

PROBE_EVERY = 60  # seconds between two tries of a token that is dead or broke
PAIR_OUT = 600  # seconds that a token is out for one model
TRIPS_AFTER = 3  # failures in a row that open the breaker
BREAKER = (5, 15, 60)  # seconds it stays open: the first time, the second, from then on
LONGEST = 86_400  # seconds, of a Retry-After
UNTIL_PROBED = frozenset(("authentication", "quota"))
OF_PAIR = frozenset(("permission", "model"))
OF_BREAKER = frozenset(("server", "connect", "broken"))
_AT_MOST = dict.fromkeys(UNTIL_PROBED, PROBE_EVERY) | dict.fromkeys(OF_PAIR, PAIR_OUT)
_AT_MOST |= dict.fromkeys(OF_BREAKER, BREAKER[-1])


@dataclass(frozen=True, slots=True)
class News:
    """`token` is out until `until` (unix seconds), for all models or, where it is named, for one."""

    token: str
    model: str
    cause: str
    until: int

    def due(self, now: float) -> bool:
        """Its time is over; or so far ahead, for its cause, that the clock must have gone back."""
        return not now < self.until <= now + 2 * _AT_MOST.get(self.cause, LONGEST)

    def holds(self, now: float) -> bool:
        """Dead and broke tokens only come back by an answer."""
        return self.cause in UNTIL_PROBED or not self.due(now)


class OutageLog(Protocol):
    """Where processes tell each other. Every method raises StoreDown."""

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        """Replaces what is known of this token and model."""
        ...

    async def retract(self, token: str, model: str) -> None:
        """What was known of this token and model is over."""
        ...

    async def published(self) -> Sequence[tuple[str, str, str, int]]:
        """All of it: token, model, cause, until."""
        ...

    async def claim(self, token: str, now: int, until: int) -> bool:
        """Whether this process may probe: moves `until` of a token that is due, for the first who asks."""
        ...


class LocalOutageLog:
    """A record for one process that forgets."""

    def __init__(self) -> None:
        self._news: dict[tuple[str, str], tuple[str, int]] = {}

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        self._news[token, model] = (cause, until)

    async def retract(self, token: str, model: str) -> None:
        self._news.pop((token, model), None)

    async def published(self) -> list[tuple[str, str, str, int]]:
        return [(token, model, cause, until) for (token, model), (cause, until) in self._news.items()]

    async def claim(self, token: str, now: int, until: int) -> bool:
        known = self._news.get((token, ""))
        if known is None or not News(token, "", *known).due(now):
            return False
        cause, _ = known
        self._news[token, ""] = (cause, until)
        return True


def of_failure(failure: UpstreamFailure, token: str, model: str, in_a_row: int, now: float) -> News | None:
    """What this failure puts out. `in_a_row`: the breaker's failures of the token, this one included."""
    cause = failure.cause
    if cause in UNTIL_PROBED:
        return News(token, "", cause, int(now) + PROBE_EVERY)
    if cause in OF_PAIR and model:  # without one it was another endpoint, and says nothing of chats
        return News(token, model, cause, int(now) + PAIR_OUT)
    if cause in ("rate", "overload"):
        after = 1.0 if failure.retry_after is None else failure.retry_after
        return News(token, "", cause, int(now + after) + 1)
    if cause in OF_BREAKER and in_a_row >= TRIPS_AFTER:
        step = min(in_a_row - TRIPS_AFTER, len(BREAKER) - 1)
        return News(token, "", cause, int(now) + BREAKER[step])
    return None


def cleared(failure: UpstreamFailure | None, bad: News | None, known: Sequence[News]) -> list[News]:
    """Which of the news that were `known` when a token was asked its answer ends. A time-out and a failure
    of the breaker are no answer; `bad`, if any, is what the answer tells instead."""
    if failure is not None and failure.cause in OF_BREAKER | {"timeout"}:
        return []
    if bad is None:
        return list(known)
    return [each for each in known if bad.model and not each.model]


def dead(known: Iterable[News]) -> bool:
    """Dead or broke."""
    return any(each.cause in UNTIL_PROBED for each in known)


def due_back(known: Sequence[News], now: float) -> tuple[bool, int]:
    """For the order in which tokens are asked when all are out: dead and broke ones that were tried within
    the minute last, else whose time is over first."""
    tried = dead(each for each in known if not each.due(now))
    return tried, max((each.until for each in known), default=0)
