"""The pool of upstream tokens: which one an attempt gets, and what it remembers of failures.

A failed token is skipped (providers/tokens/outages.py), but only while another one is available. If none is,
the request goes to the one due back first, and the vendor's answer decides.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe import current_account, emit
from kimi_gateway.providers import readiness
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Call, Token
from kimi_gateway.providers.tokens import affinity, outages
from kimi_gateway.providers.tokens.health import TokenHealth
from kimi_gateway.providers.tokens.outages import LASTING, OF_BREAKER, UNTIL_PROBED, Outage, OutageLog
from kimi_gateway.providers.tokens.wait_queue import Crowded, WaitQueue

QUEUED = 10.0  # seconds that a request waits for a token with a free place
QUEUE = 64  # requests that may wait


@dataclass(slots=True, eq=False)
class TokenLease:
    """`known` are the outages at the time of the lease; an answer can end only those."""

    token: Token
    model: str
    known: Sequence[Outage]
    _pool: Pool = field(repr=False)
    tries_dead: bool = False
    tries_breaker: bool = False
    _ended: bool = False

    def answered(self) -> None:
        self._pool.learned(self, None)

    def end(self, failure: UpstreamFailure | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._pool.returned(self, failure)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Asks for a token for `model`, not in `tried` (ids), in the order of preference of `start`. `only`: the
    id of the one token that will do."""

    model: str
    tried: frozenset[str]
    start: bytes | None
    only: str | None = None


class Renewal(Protocol):
    """A source of tokens that needs calls to read them."""

    async def fresh(self) -> None:
        """Await it before tokens are used."""
        ...

    async def doubted(self) -> None:
        """Await it after the upstream refused a token, to learn its successor."""
        ...


class Pool:
    """`source` is called for each lease, so a token that was added to the file is used at once. `places`
    bounds the requests that a token serves at a time in this process; 0 means no bound. `patience`: see
    QUEUED."""

    def __init__(
        self,
        source: Callable[[], tuple[Token, ...]],
        record: OutageLog,
        clock: Callable[[], float],
        places: int = 0,
        renewal: Renewal | None = None,
        health: TokenHealth | None = None,
    ) -> None:
        self.patience = QUEUED
        self._renewal = renewal
        self._doubted = False
        self._source = source
        self._health = health or TokenHealth(record, clock)
        self._clock = clock
        self._places = places or math.inf
        self._in_a_row: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._breaker_tries: Counter[str] = Counter()
        self._dead_tries = 0
        self._queue = WaitQueue(self._chosen, TokenLease.end, QUEUE)
        self._turn = 0
        self._unreached = -math.inf  # time at which the last request got no answer from the upstream

    def all(self) -> tuple[Token, ...]:
        return self._source()

    def available(self, token: Token) -> bool:
        """Whether requests may use the token now."""
        return self._is_available(token, "")

    def causes(self, token: Token) -> list[str]:
        """Causes of the token's outages that apply now, for all models or for one."""
        now = self._clock()
        return sorted({bad.cause for bad in self._health.of(token.id) if bad.holds(now)})

    def serving(self, token: Token) -> int:
        """Requests that the token serves now in this process."""
        return self._in_flight[token.id]

    async def another(self, tried: set[str], model: str) -> bool:
        """Whether a token is available that this request has not tried."""
        if self._doubted:
            await self._renewed()
        return self._another(tried, model)

    def _another(self, tried: set[str], model: str) -> bool:
        return any(token.id not in tried and self._is_available(token, model) for token in self._source())

    async def lease(self, call: Call | None, tried: set[str], only: str | None = None) -> TokenLease:
        """A place at an available token that was not tried, else at the one due back first. `only`: without a
        call, the id of the one token that will do.

        Accounts wait in turn. Raises UpstreamFailure if there is no token, if the last one is dead and being
        probed, and if all stay busy longer than a request may wait, or too many wait already.
        """
        if self._renewal is not None:
            await self._renewed()
        await self._health.refresh()
        tokens = self._source()
        if call is None:
            request = TokenRequest("", frozenset(tried), None, only)
        else:
            start = affinity.beginning(call.body) if len(tokens) > 1 else None
            request = TokenRequest(call.model.upstream, frozenset(tried), start, call.only)
            if not tried and call.only is None and (probing := await self._probe(tokens, request.model)):
                return probing
        self._queue.serve()
        lease = self._chosen(request)
        if lease is None:
            try:
                lease = await self._queue.wait(current_account.get(), request, self.patience)
            except Crowded as crowded:
                raise _crowded(crowded.waiting) from None
        if lease is None:
            raise UpstreamFailure("overload", "all upstream tokens are busy")
        return lease

    async def troubles(self) -> list[str]:
        """Reasons why requests probably fail, from remembered outages. Reads the shared record, never calls
        the upstream, and names no token."""
        tokens = self._source()
        await self._health.refresh()
        known = [self._health.known(token.id, "") for token in tokens]
        return readiness.troubles(known, self._unreached, self._clock())

    async def states(self) -> list[tuple[str, int, list[Outage]]]:
        """Each token's id, its requests in flight in this process, and its outages that still apply."""
        await self._health.refresh()
        now = self._clock()
        found = []
        for token in self._source():
            outages = [outage for outage in self._health.of(token.id) if outage.holds(now)]
            found.append((token.id, self._in_flight[token.id], outages))
        return found

    async def _renewed(self) -> None:
        if self._renewal is not None:
            doubted, self._doubted = self._doubted, False
            await (self._renewal.doubted() if doubted else self._renewal.fresh())

    def learn(self, token: Token, model: str, failure: UpstreamFailure | None) -> None:
        """Learn about a token without a lease."""
        self.learned(TokenLease(token, model, self._health.known(token.id, model), self), failure)

    def learned(self, lease: TokenLease, failure: UpstreamFailure | None) -> None:
        """Record the result of a call: an answer ends the outages known when it was sent, a failure may cause
        one."""
        bad = self._outage_of(failure, lease) if failure else None
        self._unreached = self._clock() if failure and failure.cause in readiness.UNREACHED else -math.inf
        if failure is None or failure.cause not in OF_BREAKER | {"timeout"}:
            self._in_a_row.pop(lease.token.id, None)
        self._doubted |= failure is not None and failure.cause == "authentication"
        ended = [each for each in outages.cleared(failure, bad, lease.known) if self._health.forget(each)]
        if bad is not None and self._health.put(bad):
            emit("token_out", logging.WARNING, token=bad.token, model=bad.model or None, cause=bad.cause,
                 until=bad.until)  # fmt: skip
        if ended and bad is None:
            emit("token_in", token=lease.token.id)

    def returned(self, lease: TokenLease, failure: UpstreamFailure | None) -> None:
        """End a lease. Without a failure nothing is learned, because the client may have left before an
        answer."""
        self._count(lease, -1)
        if failure is not None:
            self.learned(lease, failure)
        self._queue.serve()

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """Tasks that still share outages with other processes."""
        return self._health.busy

    async def close(self) -> None:
        await self._health.close()

    def _outage_of(self, failure: UpstreamFailure, lease: TokenLease) -> Outage | None:
        id, now = lease.token.id, self._clock()
        if failure.cause in OF_BREAKER:
            of_all = [bad for bad in self._health.known(id, "") if bad.holds(now) or bad.cause in OF_BREAKER]
            if any(bad.cause not in OF_BREAKER or bad not in lease.known for bad in of_all):
                return None  # unavailable for another reason, or sent before the breaker opened
            self._in_a_row[id] += 1
            if of_all:  # the probe of an open breaker, even if another process opened it
                self._in_a_row[id] = max(self._in_a_row[id], outages.TRIPS_AFTER + 1)
        return outages.of_failure(failure, id, lease.model, self._in_a_row[id], now)

    def _is_available(self, token: Token, model: str) -> bool:
        """Whether a token is available. Dead tokens recover by a probe only; behind an open breaker one
        request is tried first."""
        known = self._health.known(token.id, model)
        if not known:
            return True
        now, tries = self._clock(), self._breaker_tries[token.id]
        return not any(bad.holds(now) or bad.cause in OF_BREAKER and tries for bad in known)

    def _has_capacity(self, token: Token) -> bool:
        return self._in_flight.get(token.id, 0) < self._places

    def _chosen(self, request: TokenRequest) -> TokenLease | None:
        """A place at the best token that has one, None if all are full. Raises UpstreamFailure."""
        tokens = self._source()
        if not tokens:
            raise UpstreamFailure("authentication", "no upstream token is configured")
        if request.only is not None:
            tokens = (self._bound(tokens, request.only, request.model),)
        usable = [token for token in tokens if self._is_available(token, request.model)]
        if usable:
            untried = [token for token in usable if token.id not in request.tried]
            order = self._in_order(request, untried or usable)
        else:
            order = [self._due_back_first(tokens, request)]
        for token in order:
            if self._has_capacity(token):
                return self._leased(token, request.model)
        return None

    def _bound(self, tokens: Sequence[Token], only: str, model: str) -> Token:
        """The token with this id. Raises UpstreamFailure if it is gone, or unavailable for long while another
        one could serve what is bound to it by now."""
        token = next((token for token in tokens if token.id == only), None)
        if token is None:
            raise UpstreamFailure("bound", "the token of the request's files is gone")
        now = self._clock()
        unavailable = any(bad.cause in LASTING and bad.holds(now) for bad in self._health.known(only, model))
        if unavailable and self._another({only}, model):
            raise UpstreamFailure("bound", "the token of the request's files is unavailable")
        return token

    def _in_order(self, request: TokenRequest, tokens: list[Token]) -> list[Token]:
        """In the conversation's order of preference; without a conversation by requests in flight, then in
        turn."""
        if len(tokens) == 1:
            return tokens
        if request.start is not None:
            return affinity.ranked(request.start, tokens)
        return sorted(self._in_turn(tokens), key=lambda token: self._in_flight[token.id])

    def _in_turn(self, tokens: Sequence[Token]) -> list[Token]:
        self._turn += 1
        start = self._turn % len(tokens)
        return [*tokens[start:], *tokens[:start]]

    def _due_back_first(self, tokens: Sequence[Token], request: TokenRequest) -> Token:
        """The unavailable token that is due back first. Dead ones are probed one at a time. Raises
        UpstreamFailure."""
        known = {token: self._health.known(token.id, request.model) for token in self._in_turn(tokens)}
        if self._dead_tries:
            known = {token: bad for token, bad in known.items() if not outages.dead(bad)}
        if not known:
            raise UpstreamFailure("authentication", "the last token is unavailable and being tried")
        now = self._clock()
        return min(known, key=lambda token: (*outages.due_back(known[token], now), token.id in request.tried))

    async def _probe(self, tokens: Sequence[Token], model: str) -> TokenLease | None:
        """Lease a dead token for a probe if one is due and another token is available; one process wins the
        claim."""
        now = self._clock()
        for token in tokens if len(tokens) > 1 else ():
            bad = next(iter(self._health.known(token.id, "")), None)
            if bad is None or bad.cause not in UNTIL_PROBED or not bad.due(now):
                continue
            if self._has_capacity(token) and self._another(set(), model):
                lease, claimed = self._leased(token, model), False
                try:
                    claimed = await self._health.claim(bad)
                finally:
                    if not claimed:
                        lease.end()
                if claimed:
                    lease.known = self._health.known(token.id, model)
                    return lease
        return None

    def _leased(self, token: Token, model: str) -> TokenLease:
        known = self._health.known(token.id, model)
        if not model:  # other endpoints accept a token without balance or with too many chats
            known = [bad for bad in known if bad.cause == "authentication"]
        breaker = bool(known) and any(bad.cause in OF_BREAKER for bad in known)
        lease = TokenLease(token, model, known, self, bool(known) and outages.dead(known), breaker)
        self._count(lease, 1)
        return lease

    def _count(self, lease: TokenLease, by: int) -> None:
        _add(self._in_flight, lease.token.id, by)
        if lease.tries_breaker:
            _add(self._breaker_tries, lease.token.id, by)
        self._dead_tries += by * lease.tries_dead


def _crowded(waiting: int) -> UpstreamFailure:
    if not waiting:
        return UpstreamFailure("overload", "all upstream tokens are busy")
    words = (
        f"All upstream tokens are busy, and {waiting} other requests of this account already wait for one of"
        " them. Wait for some of them to end, then try again."
    )
    return UpstreamFailure("overload", words, quoted=True)


def _add(counter: Counter[str], name: str, by: int) -> None:
    """Add to a counter; names with a count of 0 are removed."""
    count = counter.get(name, 0) + by
    if count:
        counter[name] = count
    else:
        counter.pop(name, None)
