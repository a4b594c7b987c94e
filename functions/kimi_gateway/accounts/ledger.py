"""How an admission ends: settled or released once, tried again while the store is down, renewed till then."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.values import Admission, Usage
from kimi_gateway.observe import emit

FIRST_TRY = 2.0  # seconds that an answer may wait for its settlement
LATER = (0.2, 1.0, 5.0, 15.0)  # seconds between later tries; then the lease decides


class Ledger:
    def __init__(self, store: Store, clock: Callable[[], float], lease: float) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._running: dict[str, Admission] = {}
        self._late: set[asyncio.Task[None]] = set()

    def open(self, admission: Admission) -> None:
        self._running[admission.id] = admission

    async def settle(self, admission: Admission, model: str, usage: Usage) -> None:
        """Charge it. When the store is down, or the caller cancelled meanwhile, the tries go on behind."""
        await self._end(
            "settle", admission, lambda: self._store.settle(admission, model, usage, int(self._clock()))
        )

    async def release(self, admission: Admission, model: str, error: bool) -> None:
        await self._end(
            "release", admission, lambda: self._store.release(admission, model, error, int(self._clock()))
        )

    async def renew(self) -> None:
        """Extend the leases of all that still runs; to be called a few times a lease."""
        running = list(self._running.values())
        if running:
            await self._store.renew(running, math.ceil(self._clock() + self._lease))

    @property
    def late(self) -> set[asyncio.Task[None]]:
        """The tries that are still going on."""
        return set(self._late)

    async def drain(self, seconds: float) -> None:
        """Wait for the tries that are still going on, then give them up."""
        if self._late:
            await asyncio.wait(self._late, timeout=seconds)
        for task in self._late:
            task.cancel()

    async def _end(
        self, step: str, admission: Admission, write: Callable[[], Awaitable[bool]], once: bool = True
    ) -> None:
        self._running.pop(admission.id, None)
        try:
            async with asyncio.timeout(FIRST_TRY):
                applied = await write()
        except (StoreDown, TimeoutError) as exc:
            self._behind(self._again(step, admission, write, exc))
            return
        except asyncio.CancelledError:  # it may be written or not by now; a second time does no harm
            self._behind(self._end(step, admission, write, once=False))
            raise
        if once and not applied:
            emit("lease_gone", logging.WARNING, step=step, id=admission.id, account=admission.key.account)

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _again(
        self, step: str, admission: Admission, write: Callable[[], Awaitable[bool]], why: Exception
    ) -> None:
        for delay in LATER:
            cause = why.cause if isinstance(why, StoreDown) else StoreDown.cause
            emit(cause, logging.ERROR, step=step, id=admission.id)
            await asyncio.sleep(delay)
            try:
                await write()
                return
            except StoreDown as exc:
                why = exc
        emit("left_to_lease", logging.ERROR, step=step, id=admission.id, account=admission.key.account)
