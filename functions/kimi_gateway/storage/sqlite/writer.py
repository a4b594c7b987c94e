"""Runs jobs in transactions: short ones on the event loop while nothing must be waited for, the others on a
thread with a connection of its own. What waits at one time shares a transaction.

Only the thread waits for a lock or the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.sqlite.log import Log
from kimi_gateway.storage.sqlite.loop_connection import Busy, LoopConnection

T = TypeVar("T")
COPY_EVERY = 1000  # transactions of one job, about 3,000 pages; then the thread copies the log into the file
MOST = 256  # jobs in one transaction, so that other processes get the lock
MOST_HERE = 32  # the same on the loop, which has other work
OFTEN, SELDOM = (0.000_1, 0.001), (0.002, 0.005)  # seconds between two tries to get the lock
PATIENT = 0.1  # seconds of waiting, then seldom
ALONE = 16  # jobs that run at once after one that had no company


class _Signal(Enum):
    COPY = "copy the log"
    END = "end the thread"


@dataclass(slots=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]
    counted: bool = False  # among the queued ones of the home loop
    result: Any = None
    error: Exception | None = None


class Writer:
    """`connect` returns a connection that waits for no lock. `refusals` are exceptions of jobs that decided
    before they wrote anything. The thread copies the `log` into the file: most of it while the loop goes on,
    the rest in a job that those of the loop wait for. `lock_timeout`: seconds to wait for another process's
    transaction."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        refusals: tuple[type[Exception], ...],
        on_loop: LoopConnection | None = None,
        log: Log | None = None,
        lock_timeout: float = 5.0,
    ) -> None:
        self._connect = connect
        self._lock_timeout = lock_timeout
        self._on_loop = on_loop
        self._log = log
        self._finish_due = False  # for the thread: the next job is there to finish the log
        self._home: asyncio.AbstractEventLoop | None = None  # whose jobs may run on the loop
        self._turn: list[_Job] = []  # jobs of this turn of the home loop
        self._alone = 0  # jobs that may run at once
        self._queued = 0  # jobs of the thread that are not returned yet
        self._until_copy = COPY_EVERY
        self._refusals = refusals
        self._db: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Job | _Signal] = SimpleQueue()
        self._handover = threading.Lock()  # nothing is queued behind END
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], T], brief: bool = False) -> T:
        """Run a job in a transaction. A `brief` one runs on the loop as soon as the thread is idle, if no
        process holds the lock: at once, or with all others of this turn of the loop if jobs come together."""
        loop = asyncio.get_running_loop()
        if brief and self._on_loop is not None and self._db is not None and self._is_home(loop):
            if not self._alone or self._turn or self._queued:
                return await self._run_with_others(job, loop)
            self._alone -= 1
            self._count(1)
            if not self._closed:
                try:
                    return self._on_loop.run(job)
                except Busy:
                    pass  # the thread does it
        waiter: asyncio.Future[T] = loop.create_future()
        self._hand_over([_Job(job, loop, waiter)], loop)
        return await waiter

    def _is_home(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._home is not loop and (self._home is None or self._home.is_closed()):
            with self._handover:
                if self._home is None or self._home.is_closed():
                    self._home, self._turn, self._queued, self._until_copy = loop, [], 0, COPY_EVERY
        return self._home is loop

    async def _run_with_others(
        self, job: Callable[[sqlite3.Connection], T], loop: asyncio.AbstractEventLoop
    ) -> T:
        if self._closed:
            raise StoreDown("the store is closed")
        waiter: asyncio.Future[T] = loop.create_future()
        self._turn.append(_Job(job, loop, waiter))
        if len(self._turn) == 1 and not self._queued:  # else the thread's return ends the turn
            loop.call_soon(self._end_turn)
        return await waiter

    def _end_turn(self) -> None:
        batch, rest = self._turn[:MOST_HERE], self._turn[MOST_HERE:]
        if not batch or self._queued or self._on_loop is None:  # or they went to the thread
            return
        self._alone = ALONE if len(batch) == 1 else 0
        self._count(1 + len(batch) // 4)  # they write some of the same pages
        try:
            self._on_loop.run(partial(_run_all, batch, self._refusals))
        except Exception:  # also a job's bug, from which the thread saves the others
            self._hand_over([], batch[0].loop)
            return
        self._turn = rest
        if rest:
            batch[0].loop.call_soon(self._end_turn)
        _deliver(batch)

    def _count(self, transactions: int) -> None:
        """Let the thread copy the log when that is due."""
        before, self._until_copy = self._until_copy, self._until_copy - transactions
        if before > 0 >= self._until_copy and self._log is not None and not self._closed:
            self._queue.put(_Signal.COPY)

    def _copied(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._home is not loop:
            return
        self._until_copy, self._finish_due = COPY_EVERY, True
        waiter = loop.create_future()
        waiter.add_done_callback(asyncio.Future.exception)  # nobody else asks for it
        with contextlib.suppress(StoreDown):
            self._hand_over([_Job(_nothing, loop, waiter)], loop)

    def _hand_over(self, jobs: list[_Job], loop: asyncio.AbstractEventLoop) -> None:
        """Give jobs to the thread, behind those of this turn of the loop. Raises StoreDown."""
        with self._handover:
            if self._home is loop:
                jobs, self._turn = [*self._turn, *jobs], []
                self._count(len(jobs))
            if self._closed:
                raise StoreDown("the store is closed")
            self._give(jobs, self._home is loop)

    def _give(self, jobs: list[_Job], counted: bool) -> None:
        self._queued += len(jobs) if counted else 0
        for job in jobs:
            job.counted = counted
            self._queue.put(job)

    async def close(self) -> None:
        """Run the waiting jobs, then end the thread and its connection."""
        with self._handover:
            if not self._closed:
                self._closed = True
                self._give(self._turn, True)
                self._turn = []
                self._queue.put(_Signal.END)
        if self._on_loop is not None:
            self._on_loop.close()  # the last connection to close makes a checkpoint, on the thread
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        signal: _Signal | None = None
        while signal is not _Signal.END:
            batch, signal = self._next_batch()
            if batch:
                self._run_batch(batch)
                self._finish_log()
                self._hand_back(batch)
                batch = []  # or the last one stays here
            if signal is _Signal.COPY:
                self._copy_log()
        self._disconnect()

    def _copy_log(self) -> None:
        """Copy most of the log. No job waits for it, unless it is for the thread."""
        home = self._home
        if self._log is not None and self._db is not None:
            self._log.copy(self._db)
        if home is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                home.call_soon_threadsafe(self._copied, home)

    def _finish_log(self) -> None:
        if self._log is not None and self._db is not None:
            if self._finish_due:
                self._finish_due = False
                self._log.finish(self._db)
            self._log.restart(self._db)

    def _next_batch(self) -> tuple[list[_Job], _Signal | None]:
        batch: list[_Job] = []
        with contextlib.suppress(Empty):
            while len(batch) < MOST:
                item = self._queue.get(block=not batch)
                if isinstance(item, _Signal):
                    return batch, item
                batch.append(item)
        return batch, None

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
        self._begin(db)
        try:
            _run_all(batch, self._refusals, db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin as soon as no other process writes. SQLite's own wait sleeps up to 0.1 s at a time, while
        processes that do not wait take the lock again and again."""
        begun = time.monotonic()
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - begun
                if "locked" not in str(error) or waited >= self._lock_timeout:
                    raise
            time.sleep(random.uniform(*(OFTEN if waited < PATIENT else SELDOM)))  # noqa: S311

    def _hand_back(self, batch: list[_Job]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
        for job in batch:
            by_loop[job.loop].append(job)
        for loop, jobs in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop has ended, and its waiters with it
                loop.call_soon_threadsafe(self._handed_back, loop, jobs)

    def _handed_back(self, loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
        """Count also a caller that has left, because its next job must not overtake this one. A job that was
        given away before this loop became the home was not counted."""
        if self._home is loop:
            self._queued -= sum(job.counted for job in jobs)
        _deliver(jobs)
        if self._home is loop and self._turn:
            self._end_turn()

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _nothing(db: sqlite3.Connection) -> None:
    """It changes nothing."""


def _means_down(error: Exception) -> bool:
    """Whether the store failed (locked, full, unreadable, not a database). Other errors are the job's own."""
    store = isinstance(error, sqlite3.OperationalError | OSError | StoreDown)
    return store or type(error) is sqlite3.DatabaseError


def _run_all(batch: list[_Job], refusals: tuple[type[Exception], ...], db: sqlite3.Connection) -> None:
    for job in batch:
        job.result = job.error = None
        try:
            job.result = job.run(db)
        except refusals as refusal:
            job.error = refusal.with_traceback(None)  # its frames hold the batch


def _deliver(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.waiter.done():  # its caller was cancelled
            continue
        if job.error is None:
            job.waiter.set_result(job.result)
        else:
            job.waiter.set_exception(job.error)
