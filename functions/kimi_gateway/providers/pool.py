"""Upstream tokens in turn. An attempt leases one; the next attempt gets another where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Call, Token


@dataclass(frozen=True, slots=True)
class TurnLease:
    token: Token

    def end(self, failure: Exception | None) -> None:
        """Nothing is remembered between requests: turn-taking needs no memory."""


class Turns:
    """`source` is asked each time, so that a token added to the file is used at once."""

    def __init__(self, source: Callable[[], tuple[Token, ...]]) -> None:
        self._source = source
        self._next = 0

    async def lease(self, call: Call | None, tried: set[str]) -> TurnLease:
        tokens = self._source()
        if not tokens:
            raise UpstreamFailure("authentication", "no upstream token is configured")
        fresh = [token for token in tokens if token.id not in tried] or tokens
        self._next += 1
        return TurnLease(fresh[self._next % len(fresh)])

    def all(self) -> tuple[Token, ...]:
        return self._source()

    def untried(self, tried: set[str]) -> bool:
        return any(token.id not in tried for token in self._source())
