"""A thread that owns a SQLite connection and runs all waiting jobs in one transaction.

An event loop hands over a job and awaits its result; only the thread waits for a lock or the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.sqlite.loop_connection import Busy, LoopConnection

T = TypeVar("T")
THREAD_EVERY = 200  # short jobs; a checkpoint is due after about 300
MOST = 256  # jobs in one transaction, so that other processes get the lock


@dataclass(slots=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]
    handed_back: Callable[[], None]
    result: Any = None
    error: Exception | None = None


class Writer:
    """`refusals` are exceptions of jobs that decided before they wrote anything."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        refusals: tuple[type[Exception], ...],
        on_loop: LoopConnection | None = None,
    ) -> None:
        self._connect = connect
        self._on_loop = on_loop
        self._queued = 0  # jobs of the thread that are not returned yet
        self._until_thread = THREAD_EVERY
        self._refusals = refusals
        self._db: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._handover = threading.Lock()  # nothing is queued behind the sentinel that ends the thread
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], T], brief: bool = False) -> T:
        """Run a job in a transaction. A `brief` one runs at once if the thread is idle and no process holds
        the lock; some still go to the thread, which then makes a checkpoint and may wait for the disk."""
        if brief and self._on_loop is not None and self._db is not None and not self._queued:
            self._until_thread = self._until_thread - 1 or THREAD_EVERY
            if self._until_thread < THREAD_EVERY and not self._closed:
                with contextlib.suppress(Busy):
                    return self._on_loop.run(job)
        return await self._run_there(job)

    async def _run_there(self, job: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        with self._handover:
            if self._closed:
                raise StoreDown("the store is closed")
            self._queued += 1
            self._queue.put(_Job(job, loop, waiter, self._handed_back))
        return await waiter

    def _handed_back(self) -> None:
        """Also for a caller that has left, because its next job must not overtake this one."""
        self._queued -= 1

    async def close(self) -> None:
        """Run the queued jobs, then end the thread and its connection."""
        with self._handover:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._on_loop is not None:
            self._on_loop.close()

    def _work(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            if batch:
                self._run_batch(batch)
                _hand_back(batch)
        self._disconnect()

    def _next_batch(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        with contextlib.suppress(Empty):
            while len(batch) < MOST:
                job = self._queue.get(block=not batch)
                if job is None:
                    return batch, False
                batch.append(job)
        return batch, True

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            self._run_together(batch)
        except Exception as error:
            if _means_down(error):
                self._disconnect()  # its state is unknown; the next batch opens a new one
                for job in batch:
                    job.error = StoreDown(str(error))
            elif len(batch) == 1:
                batch[0].error = error
            else:  # one job's bug must not fail the others
                for job in batch:
                    self._run_batch([job])

    def _run_together(self, batch: list[_Job]) -> None:
        db = self._db = self._db or self._connect()
        db.execute("BEGIN IMMEDIATE")
        try:
            for job in batch:
                job.result = job.error = None
                try:
                    job.result = job.run(db)
                except self._refusals as refusal:
                    job.error = refusal.with_traceback(None)  # its frames hold the batch
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _means_down(error: Exception) -> bool:
    """Whether the store failed (locked, full, unreadable, not a database). Other errors are the job's own."""
    store = isinstance(error, sqlite3.OperationalError | OSError | StoreDown)
    return store or type(error) is sqlite3.DatabaseError


def _hand_back(batch: list[_Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in batch:
        by_loop[job.loop].append(job)
    for loop, jobs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop has ended, and its waiters with it
            loop.call_soon_threadsafe(_deliver, jobs)


def _deliver(jobs: list[_Job]) -> None:
    for job in jobs:
        job.handed_back()
        if job.waiter.done():  # its caller was cancelled
            continue
        if job.error is None:
            job.waiter.set_result(job.result)
        else:
            job.waiter.set_exception(job.error)
