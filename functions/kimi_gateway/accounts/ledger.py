"""The life of a reserved credit: it is owned from before it is written until it is settled or released, once.

A failed write is repeated behind the request. Leases are renewed while a request runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Self

from kimi_gateway.accounts import budgets, terms
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.store import NOTHING, UNUSED, KeyStale, Refused, Store, StoreDown
from kimi_gateway.accounts.usage import cause_of
from kimi_gateway.accounts.values import Admission, Amount, Bound, Key, Usage
from kimi_gateway.errors import BudgetExceeded
from kimi_gateway.net.watch import within
from kimi_gateway.observe import emit

FIRST_TRY = 2.0  # seconds that an answer waits for its settlement
LATER = (0.2, 1.0, 5.0, 15.0)  # seconds between later tries; after them the lease decides


class Latch(Enum):
    """The decision about a reserved credit. The first one counts."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"


class Hold:
    """More of the budgets for a running request. Its owner releases it once."""

    def __init__(self, ledger: Ledger, admission: Admission, model: str) -> None:
        self._ledger = ledger
        self._admission = admission
        self._model = model

    @property
    def amount(self) -> Amount:
        bound = self._admission.bound
        return NOTHING if bound is None else budgets.largest(bound, self._admission.output)

    async def release(self, billed: Amount) -> None:
        """Give back all but what was billed."""
        await self._ledger.release(self._admission, self._model, False, billed)


class Reservation:
    """One credit of `key` and `calls` places among the account's upstream calls; `async with` takes both.

    Leaving the block ends the reservation: the credit is released, and counted as an error if an exception
    leaves. After `keep`, the block does nothing and its owner calls `end`. Entering raises the errors of
    `Gate.admit` and `Places.take`.
    """

    def __init__(
        self,
        ledger: Ledger,
        gate: Gate,
        key: Key,
        cost: int,
        model: str,
        alias: str,
        calls: int,
        bound: Callable[[], Awaitable[Bound]] | None = None,
    ) -> None:
        self.latch = Latch.OPEN
        self._ledger = ledger
        self._gate = gate
        self._model = model
        self._names = (model, alias or model)
        self._kept = False
        self._calls = calls
        self._bound = bound
        # Not the request's id: the client may choose that, and admission gives one reservation to one id.
        self.admission = Admission(
            os.urandom(16).hex(), key, cost, 0, None, None
        )  # placeholder until it is granted

    async def __aenter__(self) -> Self:
        wanted, gate = self.admission, self._gate
        gate.places.take(wanted.key.account, self._calls)
        try:
            try:
                self.admission = await self._admitted(wanted, self._bound)
            except BudgetExceeded:
                bound = self.admission.bound
                if bound is None or not bound.spare:
                    raise
                self.admission = await self._admitted(wanted, partial(_without_spare, bound))
            self._ledger.opened(self.admission)
        except Exception:
            await self._refused()
            raise
        except BaseException:  # the admission may or may not be written
            self._give_places()
            self.latch = Latch.RELEASED
            self._ledger.undo(self.admission)
            raise
        return self

    async def _admitted(self, wanted: Admission, bound: Callable[[], Awaitable[Bound]] | None) -> Admission:
        bounded = partial(self._bounded, bound) if bound else None
        return await self._gate.admit(wanted.id, wanted.key, wanted.cost, self._names, bounded)

    async def hold(self, amount: Amount, estimate: int = 0) -> Hold | None:
        """Reserve more of the budgets; limits of a minute reserve the `estimate`, in tokens. None if they
        leave less, or if the store cannot answer."""
        held = await self._ledger.hold(self.admission.key, amount, estimate)
        return None if held is None else Hold(self._ledger, held, self._model)

    async def _bounded(self, ask: Callable[[], Awaitable[Bound]]) -> Bound:
        """Kept, because an admission that is undone must name what it reserved."""
        bound = await ask()
        self.admission = replace(self.admission, bound=bound)
        return bound

    async def _refused(self) -> None:
        """Clean up after a refusal; release the credit if the failure came after the admission."""
        if self.admission.expires:
            await self.release(error=True)
        self._give_places()

    def keep(self) -> None:
        self._kept = True

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None or not self._kept:
            await self.end(error=kind is not None and issubclass(kind, Exception))

    async def end(self, error: bool = False) -> None:
        """Free the places, and release the credit if nothing was decided. May be called again."""
        self._give_places()
        await self.release(error)

    async def settle(self, usage: Usage, billed: Amount | None = None) -> bool:
        """Charge the credit. True if that is written; False if the write is repeated in the background, if
        the lease had ended, or if the outcome was already decided."""
        if self.latch is not Latch.OPEN:
            return False
        self.latch = Latch.SETTLED
        return await self._ledger.settle(self.admission, self._model, usage, billed)

    async def release(
        self, error: bool, billed: Amount | None = NOTHING, usage: Usage = UNUSED, cause: str = ""
    ) -> bool:
        """Give the credit back; `error` counts a failed request with its `cause`. Returns True as `settle`
        does."""
        if self.latch is not Latch.OPEN:
            return False
        self.latch = Latch.RELEASED
        return await self._ledger.release(self.admission, self._model, error, billed, usage, cause)

    def _give_places(self) -> None:
        calls, self._calls = self._calls, 0
        self._gate.places.give(self.admission.key.account, calls)


async def _without_spare(bound: Bound) -> Bound:
    return replace(bound, calls=bound.calls - 1, spare=False)


class Ledger:
    def __init__(self, store: Store, clock: Callable[[], float], lease: float) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._running: dict[str, Admission] = {}
        self._late: set[asyncio.Task[Any]] = set()

    def reserve(
        self,
        gate: Gate,
        key: Key,
        cost: int,
        model: str,
        alias: str = "",
        calls: int = 1,
        bound: Callable[[], Awaitable[Bound]] | None = None,
    ) -> Reservation:
        """A reservation of `cost` credits for a request to `model` with `calls` upstream calls. `alias`: the
        name that the client used for the model. `bound`: what the request may use at most, for budgets."""
        return Reservation(self, gate, key, cost, model, alias, calls, bound)

    def opened(self, admission: Admission) -> None:
        if not isinstance(admission.key, GuestKey):
            self._running[admission.id] = admission

    def undo(self, admission: Admission, held: bool = False) -> None:
        """Undo an admission whose caller left before the store answered. `held`: it was to hold more."""
        self._running.pop(admission.id, None)
        if not isinstance(admission.key, GuestKey):
            self._behind(self._undo(admission, held))

    async def hold(self, key: Key, amount: Amount, estimate: int = 0) -> Admission | None:
        """Hold more of the budgets for a request of `key` that runs. An outdated key record is read again."""
        now = int(self._clock())
        bound = Bound(now, amount.tokens, 0, 0, estimate, fee=amount.usd)
        wanted = Admission(secrets.token_hex(16), key, 0, 0, None, None, bound)
        try:
            async with asyncio.timeout(FIRST_TRY):
                try:
                    held = await self._hold(wanted)
                except KeyStale:
                    fresh = await self._store.find_key(key.digest)
                    if fresh is None or terms.refusal(fresh, now) is not None:
                        return None
                    wanted = replace(wanted, key=fresh)
                    held = await self._hold(wanted)
        except Refused:
            return None
        except BaseException as exc:  # it may or may not be written
            self.undo(wanted, held=True)
            if not isinstance(exc, StoreDown | TimeoutError):
                raise
            emit(StoreDown.cause, logging.ERROR, step="hold", id=wanted.id, detail=str(exc))
            return None
        self.opened(held)
        return held

    async def _hold(self, wanted: Admission) -> Admission:
        now = self._clock()
        assert wanted.bound is not None  # noqa: S101  both callers give one
        return await self._store.hold(
            wanted.id, wanted.key, math.ceil(now + self._lease), int(now), wanted.bound
        )

    async def settle(
        self, admission: Admission, model: str, usage: Usage, billed: Amount | None = None
    ) -> bool:
        """Charge the credit. If the store is down or the caller is cancelled, the write is repeated in the
        background."""
        return await self._end(
            "settle",
            admission,
            lambda: self._store.settle(admission, model, usage, int(self._clock()), billed),
        )

    async def release(
        self,
        admission: Admission,
        model: str,
        error: bool,
        billed: Amount | None = NOTHING,
        usage: Usage = UNUSED,
        cause: str = "",
    ) -> bool:
        return await self._end(
            "release",
            admission,
            lambda: self._store.release(
                admission, model, error, int(self._clock()), billed, usage, cause_of(cause)
            ),
        )

    async def renew(self) -> None:
        """Extend the leases of running requests; call it a few times within a lease."""
        running = list(self._running.values())
        if running:
            await self._store.renew(running, math.ceil(self._clock() + self._lease))

    @property
    def late(self) -> set[asyncio.Task[Any]]:
        """Writes that are still being repeated."""
        return set(self._late)

    async def drain(self, seconds: float) -> None:
        """Wait for repeated writes, at most `seconds`, then cancel them."""
        if self._late:
            await asyncio.wait(self._late, timeout=seconds)
        for task in self._late:
            task.cancel()

    async def _end(
        self,
        step: str,
        admission: Admission,
        write: Callable[[], Coroutine[Any, Any, bool]],
        once: bool = True,
    ) -> bool:
        self._running.pop(admission.id, None)
        if isinstance(admission.key, GuestKey):
            return True  # it has no credits, and the store does not know of it
        try:
            applied = await within(FIRST_TRY, write())
        except (StoreDown, TimeoutError) as exc:
            self._behind(self._again(step, admission, write, exc))
            return False
        except asyncio.CancelledError:  # it may or may not be written; repeating it is safe
            self._behind(self._end(step, admission, write, once=False))
            raise
        if once and not applied:
            emit("lease_gone", logging.WARNING, step=step, id=admission.id, account=admission.key.account)
        return applied

    def _behind(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _undo(self, admission: Admission, more: bool) -> None:
        """Release an admission that may have been written: admitting the same id again returns it."""
        now = self._clock()
        try:
            async with asyncio.timeout(FIRST_TRY):
                lease_until = math.ceil(now + self._lease)
                again = (admission.id, admission.key, admission.cost, lease_until, int(now), admission.bound)
                held = await (self._hold(admission) if more else self._store.admit(*again))
                await self._store.release(held, "", False, int(now))
        except Refused:
            return
        except (StoreDown, TimeoutError):
            emit("left_to_lease", logging.ERROR, step="admit", id=admission.id, account=admission.key.account)

    async def _again(
        self, step: str, admission: Admission, write: Callable[[], Coroutine[Any, Any, bool]], why: Exception
    ) -> None:
        for delay in LATER:
            cause = why.cause if isinstance(why, StoreDown) else StoreDown.cause
            emit(cause, logging.ERROR, step=step, id=admission.id)
            await asyncio.sleep(delay)
            try:
                await write()
            except StoreDown as exc:
                why = exc
                continue
            emit("written_late", step=step, id=admission.id, account=admission.key.account)
            return
        emit("left_to_lease", logging.ERROR, step=step, id=admission.id, account=admission.key.account)
