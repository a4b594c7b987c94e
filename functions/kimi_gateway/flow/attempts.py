"""One upstream call of a turn: its attempts, the chunks held back before the first content, and the end of
trying.

Rules (docs/reliability.md): another attempt only until content was passed on; three at most, not counting
tokens that turn out dead; none later than 60 s. A time-out is never tried again, because the upstream may
bill it. Where there is a budget, an attempt after one that may be billed needs a reservation of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import field, replace
from typing import Any, Protocol

from kimi_gateway.accounts.store import NOTHING
from kimi_gateway.accounts.values import Amount, Bound
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import forget_frames
from kimi_gateway.net import sse
from kimi_gateway.net.watch import FOREVER, Watch
from kimi_gateway.observe import emit
from kimi_gateway.pivot.call_ids import Randomness
from kimi_gateway.pivot.chunks import Chunk, ErrorEvent, Progress, Unreadable
from kimi_gateway.pivot.stop import StopFilter
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import AGAIN, CLIENTS_FAULT, OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.provider import Call, Lease, Upstream
from kimi_gateway.providers.tokens.outages import LASTING, UNTIL_PROBED

ATTEMPTS = 3
STALE = 4  # uncounted attempts on dead kept connections; bounded, because each may be billed
START_WITHIN = 60.0  # seconds from admission to the start of the last attempt
WORTH_WAITING = 2.0  # seconds of Retry-After that are waited for, once
HELD_BYTES = 64 * 1024
MANY = 64  # events in one batch; after more, other tasks get a turn
UNBILLED = OTHER_TOKEN | CLIENTS_FAULT | {"connect"}  # failures before the vendor did any work
AFTER_FINISH = 5.0  # seconds to wait for usage and [DONE] after the finish reason


class Ended:
    """Put in the mailbox when a call is complete."""


Item = list[Chunk] | Ended | Exception
Otherwise = Callable[["UpstreamCall", UpstreamFailure], Awaitable["UpstreamCall | None"]]


class Out(Protocol):
    """The destination of a call's results: a mailbox, which blocks the call when it is full."""

    def offer(self, item: Item) -> bool: ...

    async def put(self, item: Item) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: `first_byte` until the first content, `idle` between later events."""

    first_byte: float
    idle: float


@dataclass(slots=True)
class UpstreamCall:
    """Runs as a task and puts chunks, then Ended or an exception, into `out`."""

    call: Call
    upstream: Upstream
    out: Out
    patience: Patience
    most: int  # bytes of an answer
    index: int | None = None  # of the choice, if several calls make one answer
    stops: tuple[str, ...] = ()
    jitter: Callable[[], float] = random.random
    randomness: Randomness = secrets.token_bytes
    progress: Progress = field(default_factory=Progress)
    attempts: int = 0
    refused: int = 0  # attempts with a dead token, which do not count against the limit
    stale: int = 0  # attempts on a dead kept connection; the first ones do not count either
    tokens: list[str] = field(default_factory=list)
    began: float = 0.0  # time.monotonic() of the present attempt
    failed: list[tuple[float, float, str, str]] = field(default_factory=list)  # begin, end, token, cause
    content_sent: bool = False
    ended: bool = False
    afford: Callable[[], Awaitable[bool]] | None = None  # reserves another attempt, where there is a budget
    largest: Amount = NOTHING  # that the vendor may bill for an attempt, where there is a budget
    maybe_billed: bool = False  # the present attempt was sent, and the vendor did not refuse it
    lost: int = 0  # earlier attempts that the vendor may have billed
    earlier: list[dict[str, Any]] = field(default_factory=list)  # usage of empty answers that were repeated
    otherwise: Otherwise | None = None  # the call of another model, where there is one
    follower: UpstreamCall | None = None  # took the place of this call
    given_up: str = ""  # the cause of the failure after which another model was asked
    bound: Bound | None = None  # of its own prices, where another model's was reserved
    _again: bool = True  # an empty answer is tried once more

    def go_on_from(self, before: UpstreamCall) -> None:
        """Count the attempts of a call that this one replaces."""
        self.attempts, self.refused, self.stale = before.attempts, before.refused, before.stale
        self.tokens[:0], self.failed[:0] = before.tokens, before.failed
        self.lost, self.earlier = before.lost + before.maybe_billed, before.earlier

    @property
    def empty(self) -> bool:
        """Whether the model said nothing. If a stop string was sent, the answer may have begun with it."""
        return self.progress.empty(0 if self.call.body.get("stop") else 1)

    @property
    def last(self) -> UpstreamCall:
        """The call that answers: this one, or the last one that took its place."""
        return self if self.follower is None else self.follower.last

    async def run(self) -> None:
        try:
            await self._complete()
        except UpstreamFailure as failure:
            lost = failure if self.otherwise is None else await self._give_up(failure)
            if lost is not None:
                forget_frames(lost)
                await self.out.put(lost)
        except asyncio.CancelledError:
            pass  # the task ends; raised further, the error would keep task and frames in a cycle
        except Exception as exc:
            await self.out.put(exc)

    async def _complete(self) -> None:
        await self._until_complete()
        if not self.ended:
            await self._end()

    async def _give_up(self, first: UpstreamFailure) -> Exception | None:
        """Let other models answer, one after another. The client gets the `first` failure if all of them
        fail, because that is the model it asked for; None if one answers."""
        last: UpstreamCall = self
        failure = first
        try:
            while self.otherwise is not None and not last.content_sent:
                last.given_up = failure.cause
                follower = await self.otherwise(last, failure)
                if follower is None:
                    return first
                last.follower = last = follower
                try:
                    await follower._complete()
                except UpstreamFailure as exc:
                    failure = exc
                    forget_frames(exc)
                else:
                    return None
        except Exception as exc:
            return exc
        return failure

    async def _until_complete(self) -> None:
        begun, waited, tried = time.monotonic(), False, set[str]()
        while True:
            lease = await self.upstream.tokens.lease(self.call, tried)
            self.attempts += 1
            self.tokens.append(lease.token.id)
            tried.add(lease.token.id)
            failure: UpstreamFailure | None = None
            self.maybe_billed = True
            try:
                self.began = time.monotonic()
                self._again &= self.began - begun <= START_WITHIN
                if await self._attempt(lease):
                    return
                tried.discard(lease.token.id)
                self.failed.append((self.began, time.monotonic(), lease.token.id, "empty"))
                continue
            except UpstreamFailure as exc:
                failure = exc
            finally:
                lease.end(failure)
            self.failed.append((self.began, time.monotonic(), lease.token.id, failure.cause))
            if failure.cause in UNBILLED and not self.progress.size:
                self.maybe_billed = False
            self.refused += failure.cause in UNTIL_PROBED
            self.stale += failure.stale
            other = await self.upstream.tokens.another(tried, self.call.model.upstream)
            if self.call.only is not None:
                failure, other = of_bound(failure, other, self.call.movable and not self.content_sent), False
            delay = await self._next(failure, time.monotonic() - begun, other, waited)
            detail = None if failure.cause in CLIENTS_FAULT else failure.detail  # it may quote the prompt
            emit("attempt_failed", logging.WARNING, cause=failure.cause, detail=detail,
                 token=lease.token.id, attempt=self.attempts, retry_in=delay)  # fmt: skip
            if delay is None:
                failure.attempts = self.attempts
                raise failure
            waited |= delay > 0
            self.lost += self.maybe_billed
            self.maybe_billed = False
            await asyncio.sleep(delay)

    async def _next(
        self, failure: UpstreamFailure, elapsed: float, other: bool, waited: bool
    ) -> float | None:
        if self.content_sent:
            return None
        counted = self.attempts - self.refused - min(self.stale, STALE)
        delay = next_attempt(failure, counted, elapsed, other, waited, self.jitter())
        if delay is None or self.afford is None or not self.maybe_billed:
            return delay
        return delay if await self.afford() else None

    async def _attempt(self, lease: Lease) -> bool:
        """Whether the call is done; a first empty answer is not. Raises UpstreamFailure."""
        progress = self.progress = Progress(self.randomness, self.call.free)
        stops = StopFilter(self.stops) if self.stops else None
        held: list[Chunk] = []
        try:
            async with (
                Watch(self.patience.first_byte) as watch,
                aclosing(self.upstream.provider.stream(self.call, lease.token)) as batches,  # type: ignore[type-var]
            ):
                size = 0
                async for batch in batches:
                    self._read(batch, progress, stops, held)
                    if large := len(batch[0][0]) > sse.LARGE:
                        await asyncio.sleep(sse.PAUSE)
                    if progress.size > self.most:
                        raise UpstreamFailure("broken", "an answer above the size limit")
                    if not self.content_sent:
                        size += sum([len(data) for data, _ in batch])
                        if progress.silent and size <= HELD_BYTES:
                            if progress.done:
                                break
                            watch.allow(min(self.patience.idle, AFTER_FINISH))
                            continue  # until its usage is there
                    if held and (self.content_sent or progress.done or size > HELD_BYTES or _substance(held)):
                        if not (self.content_sent and not large and self.out.offer(held)):
                            watch.allow(FOREVER)  # a slow client is not the upstream's silence
                            await self._pass_on(held, lease)
                        held = []
                    if progress.done:
                        await self._end()
                    if len(batch) > MANY:
                        await asyncio.sleep(0)  # more of the same read follows at once
                    if self.content_sent:
                        idle = self.patience.idle
                        watch.allow(min(idle, AFTER_FINISH) if progress.complete else idle)
                    if stops is not None and stops.found_all:
                        break
        except TimeoutError as exc:
            if not progress.complete:
                raise UpstreamFailure("timeout", "nothing came from the upstream in time") from exc
        except UpstreamFailure:
            if not progress.complete:  # a cut after the finish reason loses nothing
                if self.content_sent or _substance(held):
                    await self._pass_on(held, lease)  # what came before the cut counts, in whatever reads
                raise
        if not progress.complete:
            raise UpstreamFailure("broken", "the stream ended without [DONE] or a finish reason")
        if self._again and self.empty and not self.content_sent:
            self._again = False
            if self.afford is None or await self.afford():
                if progress.usage is not None:
                    self.earlier.append(progress.usage)
                else:
                    self.lost += 1
                self.progress, self.maybe_billed = Progress(self.randomness, self.call.free), False
                lease.answered()
                return False
        await self._pass_on(held, lease, whole=True)
        return True

    async def _pass_on(self, held: list[Chunk], lease: Lease, whole: bool = False) -> None:
        if not self.content_sent and (whole or _substance(held)):
            self.content_sent = True
            lease.answered()
        if held:
            await self.out.put(held)

    def _read(
        self, batch: list[sse.Event], progress: Progress, stops: StopFilter | None, held: list[Chunk]
    ) -> None:
        """Add the batch's chunks to `held`, also those before a broken event."""
        try:
            if stops is None and self.index is None:
                progress.read_all(batch, held)
                return
            for event in batch:
                chunk = progress.read(event)
                if chunk is not None and stops is not None:
                    chunk = stops.apply(chunk)
                    progress.done |= stops.found_all
                elif progress.done and stops is not None:
                    chunk = stops.rest()
                if chunk is None:
                    continue
                if self.index is not None:
                    chunk = replace(chunk, data=b"")
                    for choice in chunk.body["choices"]:
                        choice["index"] = self.index
                held.append(chunk)
        except Unreadable as exc:
            raise UpstreamFailure("broken", str(exc)) from exc
        except ErrorEvent as exc:
            raise failures.from_event(exc.error) from exc

    async def _end(self) -> None:
        """Tell the turn at once; the rest of the connection is read in the background so that it can be
        reused."""
        if not self.ended:
            self.ended = True
            await self.out.put(Ended())


def _substance(chunks: list[Chunk]) -> bool:
    return any([chunk.substance for chunk in chunks])


def of_bound(failure: UpstreamFailure, other_token: bool, movable: bool = False) -> UpstreamFailure:
    """The failure of a request that is bound to one token: if another token could serve it after a new upload
    of its files, the error says so. `movable`: the gateway can upload them itself, so it need not wait for
    this token."""
    lasting = failure.cause in (OTHER_TOKEN if movable else LASTING) and other_token
    return UpstreamFailure("bound", failure.detail) if lasting else failure


def next_attempt(
    failure: UpstreamFailure, attempts: int, elapsed: float, other_token: bool, waited: bool, jitter: float
) -> float | None:
    """Seconds until the next attempt, None to give up. `attempts` have been made; `jitter` is in [0, 1)."""
    delay = _delay(failure, attempts, other_token, waited, jitter)
    if delay is None or attempts >= ATTEMPTS or elapsed + delay > START_WITHIN:
        return None
    return delay


def _delay(
    failure: UpstreamFailure, attempts: int, other_token: bool, waited: bool, jitter: float
) -> float | None:
    if failure.cause in OTHER_TOKEN and other_token:
        return 0.0
    if failure.stale:  # the next connection is probably new
        return 0.01 + 0.01 * jitter
    if failure.cause in ("rate", "overload"):
        after = 1.0 if failure.retry_after is None else failure.retry_after
        return max(after, 0.01) if after <= WORTH_WAITING and not waited else None
    if failure.cause in AGAIN:
        return (0.1 + 0.2 * jitter) * 2.0 ** (attempts - 1)
    return None
