"""The pool of upstream tokens: which one an attempt gets, and what is remembered of their failures.

A token that failed is out, by the cause of its failure (providers.news), but only while another one is in:
when none is, the request goes to the one due back first, and the vendor's answer decides.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.observe import emit
from kimi_gateway.providers import news
from kimi_gateway.providers.affinity import beginning, ranked
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.news import UNTIL_PROBED, News, Record
from kimi_gateway.providers.provider import Call, Token

READ_EVERY = 30.0  # seconds between two looks into the shared record
QUEUED = 10.0  # seconds that a request waits for a token with a free place
QUEUE = 64  # requests that may wait


@dataclass(slots=True)
class TokenLease:
    token: Token
    model: str
    _pool: Pool
    _ended: bool = field(default=False)

    def end(self, failure: UpstreamFailure | None) -> None:
        if not self._ended:
            self._ended = True
            self._pool.returned(self.token, self.model, failure)


class Pool:
    """`source` is asked at each lease, so that a token added to the file is used at once. `places` bounds the
    requests that a token serves at a time in this process; 0 is no bound."""

    def __init__(
        self,
        source: Callable[[], tuple[Token, ...]],
        record: Record,
        clock: Callable[[], float],
        places: int = 0,
    ) -> None:
        self._source = source
        self._record = record
        self._clock = clock
        self._places = places or math.inf
        self._out: dict[tuple[str, str], News] = {}
        self._in_a_row: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._asked_alone: set[str] = set()
        self._probing: set[str] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn = 0
        self._read_at = -math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def all(self) -> tuple[Token, ...]:
        return self._source()

    def another(self, tried: set[str], model: str) -> bool:
        """Whether a token is in that this request has not tried."""
        now = self._clock()
        return any(token.id not in tried and self._is_in(token, model, now) for token in self._source())

    async def lease(self, call: Call | None, tried: set[str]) -> TokenLease:
        """A place at a token that is in and was not tried, else at the one due back first.

        Raises UpstreamFailure: without any token, when the last one is dead and being asked already, and when
        all are busy for longer than a request may wait.
        """
        await self._look_into_record()
        tokens = self._source()
        if not tokens:
            raise UpstreamFailure("authentication", "no upstream token is configured")
        model, now = call.model.upstream if call else "", self._clock()
        usable = [token for token in tokens if self._is_in(token, model, now)]
        if not usable:
            return self._due_back_first([t for t in tokens if t.id not in tried] or tokens, model)
        if not tried and (probed := await self._to_probe(tokens, now)):
            return self._leased(probed, model)
        fresh = [token for token in usable if token.id not in tried] or usable
        return self._leased(await self._with_a_place(self._in_order(call, fresh)), model)

    def returned(self, token: Token, model: str, failure: UpstreamFailure | None) -> None:
        """The lease is over."""
        self._in_flight[token.id] -= 1
        self._probing.discard(token.id)
        self._asked_alone.discard(token.id)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
        self.learn(token, model, failure)

    def learn(self, token: Token, model: str, failure: UpstreamFailure | None) -> None:
        """An answer says that the token is in again, whatever was known; a failure, what its cause says."""
        if failure is not None and failure.cause == "timeout":
            return  # says nothing of the token
        known = any(self._known(token, model))
        breaking = failure is not None and failure.cause in news.OF_BREAKER
        self._in_a_row[token.id] = self._in_a_row[token.id] + 1 if breaking else 0
        bad = failure and news.of_failure(failure, token.id, model, self._in_a_row[token.id], self._clock())
        if bad:
            self._put_out(bad)
        elif known and not breaking:
            self._put_in(token, model)

    def _put_out(self, bad: News) -> None:
        self._out[bad.token, bad.model] = bad
        emit("token_out", logging.WARNING, token=bad.token, model=bad.model or None, cause=bad.cause,
             until=bad.until)  # fmt: skip
        self._tell(self._record.publish(bad.token, bad.model, bad.cause, bad.until))

    def _put_in(self, token: Token, model: str) -> None:
        for about in ("", model):
            if self._out.pop((token.id, about), None):
                self._tell(self._record.retract(token.id, about))
        emit("token_in", token=token.id)

    def _known(self, token: Token, model: str) -> tuple[News | None, News | None]:
        return self._out.get((token.id, "")), self._out.get((token.id, model))

    def _is_in(self, token: Token, model: str, now: float) -> bool:
        """Dead and broke ones only come back by a probe; behind an open breaker one request tries first."""
        return all(
            bad is None
            or bad.until <= now
            and bad.cause not in UNTIL_PROBED
            and not (bad.cause in news.OF_BREAKER and token.id in self._probing)
            for bad in self._known(token, model)
        )

    def _due_back_first(self, tokens: Sequence[Token], model: str) -> TokenLease:
        def due(token: Token) -> int:
            return max((bad.until for bad in self._known(token, model) if bad), default=0)

        token = min(tokens, key=due)
        bad = self._out.get((token.id, ""))
        if bad is not None and bad.cause in UNTIL_PROBED:
            if token.id in self._asked_alone:
                raise UpstreamFailure("authentication", "the last token is out and is being tried")
            self._asked_alone.add(token.id)
        return self._leased(token, model)

    async def _to_probe(self, tokens: Sequence[Token], now: float) -> Token | None:
        """A dead or broke token whose next try is due; one process of all gets it."""
        for token in tokens:
            bad = self._out.get((token.id, ""))
            if bad is None or bad.cause not in UNTIL_PROBED or bad.until > now:
                continue
            until = int(now) + news.PROBE_EVERY
            self._out[token.id, ""] = News(token.id, "", bad.cause, until)
            if await self._claimed(token, int(now), until):
                return token
        return None

    def _in_order(self, call: Call | None, tokens: list[Token]) -> list[Token]:
        """The conversation's own preference; without a conversation least in flight, then in turn."""
        if call is not None and len(tokens) > 1:
            return ranked(beginning(call.body), tokens)
        self._turn += 1
        start = self._turn % len(tokens)
        return sorted(tokens[start:] + tokens[:start], key=lambda token: self._in_flight[token.id])

    async def _with_a_place(self, tokens: list[Token]) -> Token:
        end = asyncio.get_running_loop().time() + QUEUED
        while True:
            for token in tokens:
                if self._in_flight[token.id] < self._places:
                    return token
            left = end - asyncio.get_running_loop().time()
            if left <= 0 or len(self._waiting) >= QUEUE:
                raise UpstreamFailure("overload", "all upstream tokens are busy")
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                async with asyncio.timeout(left):
                    await place
            except TimeoutError:
                continue
            finally:
                place.cancel()

    def _leased(self, token: Token, model: str) -> TokenLease:
        self._in_flight[token.id] += 1
        bad = self._out.get((token.id, ""))
        if bad is not None and bad.cause in news.OF_BREAKER:
            self._probing.add(token.id)
        return TokenLease(token, model, self)

    async def close(self) -> None:
        """All that was to be told is told."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _look_into_record(self) -> None:
        """Other processes' news, and that of before a restart. Without the record each remembers its own."""
        now = self._clock()
        if now - self._read_at < READ_EVERY:
            return
        self._read_at = now
        await self.close()  # or this process's own last news would be forgotten
        try:
            entries = await self._record.published()
        except Exception as exc:
            emit("record_down", logging.WARNING, detail=str(exc))
            return
        self._out = {(token, model): News(token, model, cause, until)
                     for token, model, cause, until in entries}  # fmt: skip

    async def _claimed(self, token: Token, now: int, until: int) -> bool:
        try:
            return await self._record.claim(token.id, now, until)
        except Exception as exc:
            emit("record_down", logging.WARNING, detail=str(exc))
            return True

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        """Behind the request, which must not wait for it or fail with it."""

        async def tell() -> None:
            try:
                await telling
            except Exception as exc:
                emit("record_down", logging.WARNING, detail=str(exc))

        task = asyncio.create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
