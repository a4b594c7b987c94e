"""What an account keeps costs the others a bounded number of the database's steps, however much it is."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.values import Grant
from kimi_gateway.storage.answers import Claim
from kimi_gateway.storage.sqlite import answers, cache, database, steps
from kimi_gateway.storage.sqlite.shelves import PIECE, Shelves
from kimi_gateway.storage.sqlite.store import SqliteStore
from kimi_gateway.storage.sqlite.writer import Writer

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
MANY = 20_000
ROW_STEPS = 500  # of the database's machine, for one row and its indexes


class Counted:
    """The steps of each transaction of a writer, in hundreds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = self.most = 0

    def connect(self) -> sqlite3.Connection:
        db = database.connect(self.path, 5.0)
        db.set_progress_handler(self._step, 100)
        db.set_trace_callback(self._seen)
        return db

    def _step(self) -> None:
        self.last += 100
        self.most = max(self.most, self.last)

    def _seen(self, statement: str) -> None:
        if statement.startswith("BEGIN"):
            self.last = 0


class Desk:
    """A store of one table whose transactions are counted."""

    def __init__(self, path: Path, table: Any, most_of_account: int, most: int) -> None:
        self.counted = Counted(path)
        self.writer = Writer(self.counted.connect, steps.REFUSALS)
        self.path = path
        self.shelves = Shelves(self.writer, self.read, table, most_of_account, most)
        self.summed = 0

    async def read(self, job: Any, /) -> Any:
        self.summed += 1
        await self.writer.run(lambda db: None)
        with closing(sqlite3.connect(self.path)) as db:
            return job(db)

    async def filled(self, table: str, account: str, rows: int, size: int, until: int = NOW + 86_400) -> None:
        """Rows as an earlier process left them."""
        columns = "account, name, until, size, value"
        more = ", fingerprint, owner, done" if table == "answers" else ""
        given = "?, ?, ?, ?, zeroblob(?)" + (", 'f', 'o', 1" if more else "")
        of = [(account, f"{number}", until + number // 100, size, size) for number in range(rows)]
        query = f"INSERT INTO {table} ({columns}{more}) VALUES ({given})"  # noqa: S608 - a test's own
        await self.writer.run(lambda db: db.executemany(query, of))
        self.counted.most = 0

    async def sum(self, table: str, account: str) -> tuple[int, int]:
        query = f"SELECT count(*), sum(size) FROM {table} WHERE account = ?"  # noqa: S608 - a test's own
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query, (account,)).fetchone()  # type: ignore[no-any-return]


@pytest.fixture
async def entries(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "db", cache.TABLE, 4_000_000, 40_000_000)
    yield desk
    await desk.writer.close()


@pytest.fixture
async def kept(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "db", answers.TABLE, 4_000_000, 40_000_000)
    yield desk
    await desk.writer.close()


async def keep_answer(desk: Desk, account: str, name: str, size: int = 200) -> None:
    store = answers.SqliteAnswers(desk.writer, desk.shelves)
    await store.claim_answer(account, name, Claim("f", "o", NOW + 660), NOW)
    assert await store.keep_answer(account, name, "o", bytes(size), NOW + 86_400 + 1_000)


async def keep_entry(desk: Desk, account: str, name: str, size: int = 200) -> None:
    await desk.writer.run(lambda db: cache.keep(db, account, {name: bytes(size)}, NOW + 86_400 + 1_000))
    await desk.shelves.grown(account, size)


@pytest.mark.parametrize("account", ["full", "other"])
async def test_an_entry_takes_the_same_steps_beside_many(entries: Desk, account: str) -> None:
    await entries.filled("replay", "full", MANY, 190)
    await keep_entry(entries, account, "one")
    assert entries.counted.most <= ROW_STEPS


@pytest.mark.parametrize("account", ["full", "other"])
async def test_an_answer_takes_the_same_steps_beside_many(kept: Desk, account: str) -> None:
    await kept.filled("answers", "full", MANY, 190)
    await keep_answer(kept, account, "one")
    assert kept.counted.most <= ROW_STEPS


async def test_a_full_account_loses_its_oldest_entries_in_pieces(entries: Desk) -> None:
    await entries.filled("replay", "full", 3 * MANY, 190)
    await entries.filled("replay", "other", 100, 190)
    for number in range(4_000_000 // 16 // 200 + 1):
        await keep_entry(entries, "full", f"new {number}")
    rows, size = await entries.sum("replay", "full")
    assert 3_000_000 < size <= 4_000_000
    assert await entries.sum("replay", "other") == (100, 19_000)
    assert entries.counted.most <= PIECE * ROW_STEPS
    assert entries.summed == 1
    for number in range(3 * 4_000_000 // 16 // 200):  # and the sum is asked for as rarely after that
        await keep_entry(entries, "full", f"newer {number}")
    assert entries.summed <= 4
    newest = f"newer {number}"
    assert await entries.writer.run(lambda db: cache.recall(db, "full", [newest, "0"], NOW)) == {
        newest: bytes(200)
    }


async def test_a_full_account_loses_its_oldest_answers_in_pieces_and_keeps_their_names(kept: Desk) -> None:
    await kept.filled("answers", "full", 3 * MANY, 190)
    for number in range(4_000_000 // 16 // 200 + 1):
        await keep_answer(kept, "full", f"new {number}")
    rows, size = await kept.sum("answers", "full")
    assert rows == 3 * MANY + number + 1
    assert 3_000_000 < size <= 4_000_000
    assert kept.counted.most <= PIECE * ROW_STEPS


@pytest.mark.parametrize("table", ["replay", "answers"])
async def test_what_ended_goes_in_pieces_and_so_does_what_is_too_much_in_all(
    entries: Desk, kept: Desk, table: str
) -> None:
    desk = entries if table == "replay" else kept
    for account in ("a", "b"):
        await desk.filled(table, account, 2_000, 190, NOW - 86_400)
    for number in range(30):
        await desk.filled(table, f"c{number}", 100, 19_000, NOW + number)
    await desk.shelves.purge(NOW)
    assert await desk.sum(table, "a") == await desk.sum(table, "b") == (0, None)
    left = [(await desk.sum(table, f"c{number}"))[1] or 0 for number in range(30)]
    assert 39_000_000 < sum(left) <= 40_000_000
    assert left == sorted(left)
    assert desk.counted.most <= PIECE * ROW_STEPS


async def test_an_account_that_goes_takes_all_with_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    account, other = [(await store.create_account(name, Grant(9), NOW)).id for name in "ab"]
    for each in (account, other):
        await store.keep(each, {f"n{number}": b"x" for number in range(3 * PIECE)}, NOW + 9)
        await store.answers().claim_answer(each, "n", Claim("f", "o", NOW + 660), NOW)
        await store.answers().keep_answer(each, "n", "o", b"x", NOW + 900)
    await store.delete_account(account)
    for table, left in (("replay", 3 * PIECE), ("answers", 1)):
        query = f"SELECT account, count(*) FROM {table} GROUP BY account"  # noqa: S608 - a test's own
        assert await store._writer.run(lambda db, query=query: db.execute(query).fetchall()) == [
            (other, left)
        ]  # type: ignore[misc]
    await store.close()
