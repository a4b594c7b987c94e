"""Where jobs run, and what shares a transaction."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.storage.sqlite import cursors, database
from kimi_gateway.storage.sqlite.log import Log
from kimi_gateway.storage.sqlite.loop_connection import LoopConnection
from kimi_gateway.storage.sqlite.writer import ALONE, COPY_EVERY, MOST_HERE, Writer
from support.locking import locked

pytestmark = pytest.mark.anyio


class RefusedJob(Exception):
    pass


class Watched(LoopConnection):
    """It counts its transactions that started the log again."""

    log: Path
    restarts = 0

    def run(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        before = _salt(self.log)
        try:
            return super().run(job)
        finally:
            self.restarts += _salt(self.log) != before


class Counted:
    """A writer, the statements that begin its transactions by thread, and a job that tells its thread."""

    def __init__(self, path: Path, log: Log | None = None) -> None:
        self.path = path
        self.begun: list[int] = []
        self._until = -1
        self._reached: Callable[[], object] = list
        beside = Watched(lambda: self._traced(database.connect_beside(path)), (RefusedJob,))
        self.beside, beside.log = beside, path.with_name(path.name + "-wal")
        connect = lambda: self._traced(database.connect(path, 5.0))  # noqa: E731
        self.writer = Writer(connect, (RefusedJob,), beside, log or Log(path))

    def _traced(self, db: sqlite3.Connection) -> sqlite3.Connection:
        def saw(statement: str) -> None:
            if statement.startswith("BEGIN"):
                self.begun.append(threading.get_ident())
                if len(self.begun) == self._until:
                    self._reached()

        db.set_trace_callback(saw)
        return db

    def begins_until(self, count: int, reached: Callable[[], object]) -> None:
        self._until, self._reached = count, reached

    async def write(self, name: str, error: Exception | None = None) -> int:
        def job(db: sqlite3.Connection) -> int:
            if isinstance(error, RefusedJob):
                raise error
            db.execute("INSERT INTO tallies VALUES (?, 1, 0)", (name,))
            if error is not None:
                raise error
            return threading.get_ident()

        return await self.writer.run(job, brief=True)

    async def names(self) -> list[str]:
        def job(db: sqlite3.Connection) -> list[str]:
            return [name for (name,) in db.execute("SELECT name FROM tallies ORDER BY name")]

        return await self.writer.run(job)


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    counted = Counted(tmp_path / "jobs.db")
    await counted.names()  # opens the file
    counted.begun.clear()
    yield counted
    await counted.writer.close()


async def test_jobs_of_one_turn_share_a_transaction_on_the_loop(counted: Counted) -> None:
    here = threading.get_ident()
    await counted.write("first")  # had no company
    for _ in range(ALONE):
        await counted.write(f"alone {len(counted.begun)}")
    assert counted.begun == [here] * (1 + ALONE)
    counted.begun.clear()
    found = await asyncio.gather(*(counted.write(f"{number:03}") for number in range(2 * MOST_HERE)))
    assert set(found) == {here}
    assert counted.begun == [here] * 2
    assert len(await counted.names()) == 1 + ALONE + 2 * MOST_HERE


async def test_a_refused_job_and_a_broken_one_leave_their_neighbours_alone(counted: Counted) -> None:
    calls = [
        counted.write("good"),
        counted.write("refused", RefusedJob()),
        counted.write("broken", OverflowError()),
        counted.write("better"),
    ]
    good, refused, broken, better = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, RefusedJob)
    assert isinstance(broken, OverflowError)
    assert isinstance(good, int)
    assert isinstance(better, int)
    assert await counted.names() == ["better", "good"]


async def test_jobs_of_a_turn_go_to_the_thread_while_a_process_holds_the_lock(counted: Counted) -> None:
    with locked(counted.path):
        calls = asyncio.gather(*(counted.write(f"{number}") for number in range(3)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not calls.done()
        late = asyncio.ensure_future(counted.write("late"))  # waits for those before it, in the loop
        await asyncio.sleep(0)
    here = threading.get_ident()
    assert here not in await calls
    assert await late == here
    assert await counted.names() == ["0", "1", "2", "late"]


async def test_a_long_job_does_not_overtake_the_jobs_of_the_turn(counted: Counted) -> None:
    calls = [asyncio.ensure_future(counted.write(f"{number}")) for number in range(3)]
    await asyncio.sleep(0)
    assert await counted.names() == ["0", "1", "2"]
    await asyncio.gather(*calls)


async def test_closing_runs_the_jobs_of_the_turn(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "jobs.db")
    await counted.names()
    calls = asyncio.gather(*(counted.write(f"{number}") for number in range(3)))
    await asyncio.sleep(0)
    await counted.writer.close()
    await calls
    with contextlib.closing(sqlite3.connect(counted.path)) as db:
        assert db.execute("SELECT count(*) FROM tallies").fetchone() == (3,)


async def test_a_cancelled_job_of_a_turn_does_not_stop_the_others(counted: Counted) -> None:
    calls = [asyncio.ensure_future(counted.write(f"{number}")) for number in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert "0" in await counted.names()
    assert "2" in await counted.names()


async def test_the_loop_never_restarts_the_log(counted: Counted) -> None:
    """Only the transaction that does so waits for the disk. Its salt is in the log's header."""
    salts, number = set[bytes](), 0
    while len(salts) < 4:  # how much the loop writes meanwhile depends on the disk
        number += 1
        assert number < 500 * COPY_EVERY
        await counted.write(f"{number:09}" * 50)
        salts.add(_salt(counted.beside.log))
    assert counted.beside.restarts == 0


class Waiting(Log):
    """Its copying goes on when a test says so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.go_on, self.finished = threading.Event(), threading.Event(), threading.Event()

    def copy(self, db: sqlite3.Connection) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super().copy(db)

    def finish(self, db: sqlite3.Connection) -> None:
        super().finish(db)
        self.finished.set()


@pytest.mark.parametrize("together", [1, 4])
async def test_no_job_of_the_loop_waits_while_the_log_is_copied(tmp_path: Path, together: int) -> None:
    path = tmp_path / "jobs.db"
    log = Waiting(path)
    counted, here = Counted(path, log), threading.get_ident()
    await counted.names()
    number = 0

    async def write() -> None:
        nonlocal number
        number += together
        names = [f"{each:09}" for each in range(number, number + together)]
        assert set(await asyncio.gather(*map(counted.write, names))) == {here}

    while not log.begun.is_set():
        await write()
    for _ in range(2 * COPY_EVERY):
        await write()
    log.go_on.set()
    await asyncio.to_thread(log.finished.wait, 30)
    assert log.finished.is_set()
    await counted.writer.close()


def test_a_copied_log_starts_again_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    file, log = path.with_name(path.name + "-wal"), Log(path)
    with (
        contextlib.closing(database.connect(path, 5.0)) as thread,
        contextlib.closing(database.connect_beside(path)) as loop,
    ):
        write = lambda: loop.execute("INSERT INTO tallies VALUES (hex(randomblob(8)), 1, 0)")  # noqa: E731
        write()
        first, size = _salt(file), path.stat().st_size
        log.copy(thread)
        assert path.stat().st_size > size
        write()
        log.restart(thread)
        assert _salt(file) == first
        log.finish(thread)
        log.restart(thread)
        assert _salt(file) != first


def _salt(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(24)[16:]


async def test_the_thread_asks_for_a_lock_again_and_again(counted: Counted) -> None:
    """SQLite's own wait tries twelve times in the first half second, and ten times in each one after it."""
    with locked(counted.path):
        counted.begun.clear()
        loop, often = asyncio.get_running_loop(), asyncio.Event()
        counted.begins_until(60, lambda: loop.call_soon_threadsafe(often.set))
        call = asyncio.ensure_future(counted.write("late"))
        async with asyncio.timeout(10):
            await often.wait()
        assert not call.done()
    await call


async def test_a_job_given_away_before_the_loop_is_at_home_is_not_counted_as_returned(tmp_path: Path) -> None:
    """The thread has opened the file and still works for the first caller when the second one comes."""
    counted = Counted(tmp_path / "jobs.db")
    opened, go_on = threading.Event(), threading.Event()

    def first(db: sqlite3.Connection) -> None:
        opened.set()
        go_on.wait(10)

    jobs = [asyncio.create_task(counted.writer.run(first, brief=True))]
    await asyncio.to_thread(opened.wait, 10)
    jobs.append(asyncio.create_task(counted.write("second")))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*jobs)
    await asyncio.wait_for(asyncio.gather(*map(counted.write, ("third", "fourth"))), 10)
    assert await counted.names() == ["fourth", "second", "third"]
    await counted.writer.close()


async def test_the_thread_keeps_no_job_that_it_has_done(counted: Counted) -> None:
    class Job:
        def __call__(self, db: sqlite3.Connection) -> None:
            pass

    job = Job()
    kept = weakref.ref(job)
    await counted.writer.run(job)
    del job
    async with asyncio.timeout(30):
        while kept() is not None:  # noqa: ASYNC110  the thread hands back before it lets go
            await asyncio.sleep(0.001)


def dead_references() -> int:
    return sum(type(each) is weakref.ReferenceType and each() is None for each in gc.get_objects())


async def test_a_writer_at_rest_forgets_the_cursors_of_its_jobs(counted: Counted) -> None:
    before = dead_references()
    for number in range(40):
        await counted.write(f"on the loop {number}")
    for _ in range(100):
        await counted.names()
    assert dead_references() > before + 100
    await cursors.forget(counted.writer)
    assert dead_references() <= before + 20
