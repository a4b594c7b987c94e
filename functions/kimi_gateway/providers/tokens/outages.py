"""Outages of upstream tokens: which failure causes which outage, for how long, and the record that processes
share. Rules: docs/reliability.md, Tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.failures import UpstreamFailure

PROBE_EVERY = 60  # seconds between two probes of a token that is invalid or has no balance
PAIR_OUT = 600  # seconds for which a token is unavailable for one model
TRIPS_AFTER = 3  # failures in a row that open the breaker
BREAKER = (5, 15, 60)  # seconds that it stays open: the first time, the second, and after that
LONGEST = 86_400  # longest Retry-After in seconds
UNTIL_PROBED = frozenset(("authentication", "quota"))
OF_PAIR = frozenset(("permission", "model"))
LASTING = UNTIL_PROBED | OF_PAIR  # not worth waiting for
OF_BREAKER = frozenset(("server", "connect", "broken"))
_AT_MOST = dict.fromkeys(UNTIL_PROBED, PROBE_EVERY) | dict.fromkeys(OF_PAIR, PAIR_OUT)
_AT_MOST |= dict.fromkeys(OF_BREAKER, BREAKER[-1])

# What an operator can do about an outage, by its cause.
MEND = {
    "authentication": "replace it: tokens add, then tokens remove",
    "quota": "recharge the account at the platform's console",
    "permission": "check at the platform's console what the account may use",
    "model": "check at the platform's console what the account may use",
}
WAIT = "wait; a token of another account could take over meanwhile"


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage: `token` is unavailable until `until` (unix seconds), for all models or for `model`."""

    token: str
    model: str
    cause: str
    until: int

    def due(self, now: float) -> bool:
        """Whether its time has passed. A time that is too far ahead for its cause (the clock was set back)
        counts as passed."""
        return not now < self.until <= now + 2 * _AT_MOST.get(self.cause, LONGEST)

    def holds(self, now: float) -> bool:
        """Whether it still applies. Tokens that are invalid or have no balance recover by an answer only."""
        return self.cause in UNTIL_PROBED or not self.due(now)


class OutageLog(Protocol):
    """The record that processes share. Every method raises StoreDown."""

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        """Replace the outage of this token and model."""
        ...

    async def retract(self, token: str, model: str) -> None:
        """Delete the outage of this token and model."""
        ...

    async def published(self) -> Sequence[tuple[str, str, str, int]]:
        """All outages: token, model, cause, until."""
        ...

    async def claim(self, token: str, now: int, until: int) -> bool:
        """Whether this process may probe the token. Moves `until` of a token that is due, for the first
        caller only."""
        ...


class LocalOutageLog:
    """A record in the memory of one process."""

    def __init__(self) -> None:
        self._outages: dict[tuple[str, str], tuple[str, int]] = {}

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        self._outages[token, model] = (cause, until)

    async def retract(self, token: str, model: str) -> None:
        self._outages.pop((token, model), None)

    async def published(self) -> list[tuple[str, str, str, int]]:
        return [(token, model, cause, until) for (token, model), (cause, until) in self._outages.items()]

    async def claim(self, token: str, now: int, until: int) -> bool:
        known = self._outages.get((token, ""))
        if known is None or not Outage(token, "", *known).due(now):
            return False
        cause, _ = known
        self._outages[token, ""] = (cause, until)
        return True


def of_failure(failure: UpstreamFailure, token: str, model: str, in_a_row: int, now: float) -> Outage | None:
    """The outage that a failure causes, None if there is none. `in_a_row`: consecutive breaker failures of
    the token, including this one."""
    cause = failure.cause
    if cause in UNTIL_PROBED:
        return Outage(token, "", cause, int(now) + PROBE_EVERY)
    if cause in OF_PAIR and model:  # without a model it was another endpoint, which says nothing about chats
        return Outage(token, model, cause, int(now) + PAIR_OUT)
    if cause in ("rate", "overload"):
        after = 1.0 if failure.retry_after is None else failure.retry_after
        return Outage(token, "", cause, int(now + after) + 1)
    if cause in OF_BREAKER and in_a_row >= TRIPS_AFTER:
        step = min(in_a_row - TRIPS_AFTER, len(BREAKER) - 1)
        return Outage(token, "", cause, int(now) + BREAKER[step])
    return None


def cleared(failure: UpstreamFailure | None, caused: Outage | None, known: Sequence[Outage]) -> list[Outage]:
    """The outages among `known` (when the token was asked) that its answer ends. Time-outs and breaker
    failures are not answers. `caused` is the outage that the answer itself causes."""
    if failure is not None and failure.cause in OF_BREAKER | {"timeout"}:
        return []
    if caused is None:
        return list(known)
    return [each for each in known if caused.model and not each.model]


def dead(known: Iterable[Outage]) -> bool:
    """Whether the token is invalid or has no balance."""
    return any(each.cause in UNTIL_PROBED for each in known)


def due_back(known: Sequence[Outage], now: float) -> tuple[bool, int]:
    """Sort key for unavailable tokens: those found dead within the last minute come last, the others by end
    of outage."""
    tried = dead(each for each in known if not each.due(now))
    return tried, max((each.until for each in known), default=0)
