"""Bounds on the bytes that a table keeps, of an account and of all, at a cost that no number of rows raises.

What one account keeps must not hold up the others. So its bytes are added up beside the writer, and only
after this process wrote a sixteenth of the bound for it. Rows go in pieces, between other transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.sqlite.writer import Writer

T = TypeVar("T")
STEPS = 16  # steps in which an account's bound is filled
PIECE = 256  # rows that one transaction takes off a shelf
PIECE_BYTES = 4 * 2**20  # the same in bytes
LEAST = 128  # bytes that a row counts towards a step


class Reading(Protocol):
    def __call__(self, job: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Table:
    """`held` are its rows with bytes. `empty` takes the bytes of the row with an id."""

    name: str
    held: str
    empty: str

    def size(self, db: sqlite3.Connection, account: str | None) -> int:
        query = f"SELECT coalesce(sum(size), 0) FROM {self.name} WHERE {self.held}"  # noqa: S608 - constants
        found: int = db.execute(*_of(query, account)).fetchone()[0]
        return found

    def shrink(self, db: sqlite3.Connection, account: str | None, excess: int) -> int:
        """Take off the oldest rows, `excess` bytes or one piece; returns the bytes."""
        query, of = _of(f"SELECT id, size FROM {self.name} WHERE {self.held}", account)  # noqa: S608 - constants
        order = (
            "until, size" if account is None else "until, id"
        )  # the first is an index of all accounts' rows
        return self._take(db, self.empty, f"{query} ORDER BY {order}", of, excess)[1]

    def expire(self, db: sqlite3.Connection, now: int) -> bool:
        """Delete one piece of the rows that have ended; whether there may be more."""
        query = f"SELECT id, size FROM {self.name} WHERE until <= ?"  # noqa: S608 - constants
        return self._take(db, self._delete, query, (now,), PIECE_BYTES)[0] > 0

    def leave(self, db: sqlite3.Connection, account: str) -> bool:
        """The same for the rows of an account."""
        query = f"SELECT id, size FROM {self.name} WHERE account = ?"  # noqa: S608 - constants
        return self._take(db, self._delete, query, (account,), PIECE_BYTES)[0] > 0

    @property
    def _delete(self) -> str:
        return f"DELETE FROM {self.name} WHERE id = ?"  # noqa: S608 - constants

    def _take(
        self, db: sqlite3.Connection, step: str, query: str, of: tuple[object, ...], most: int
    ) -> tuple[int, int]:
        """The rows and bytes that were taken."""
        taken, size = list[tuple[int]](), 0
        for id, bytes_of in db.execute(f"{query} LIMIT {PIECE}", of).fetchall():
            taken.append((id,))
            size += bytes_of
            if size >= min(most, PIECE_BYTES):
                break
        db.executemany(step, taken)
        return len(taken), size


def _of(query: str, account: str | None) -> tuple[str, tuple[object, ...]]:
    return (query, ()) if account is None else (f"{query} AND account = ?", (account,))


class Shelves:
    """The rows of a table by account. `read` runs a job beside the writer; bounds are in bytes."""

    def __init__(self, writer: Writer, read: Reading, table: Table, most_of_account: int, most: int) -> None:
        self._writer = writer
        self._read = read
        self._table = table
        self._step = most_of_account // STEPS
        self._most_of_account = most_of_account
        self._most = most
        self._grown = BoundedDict[int]()  # bytes by account since its rows were added up

    async def grown(self, account: str, size: int) -> None:
        """`size` bytes of an account were written. Raises StoreDown."""
        grown = self._grown.get(account, 0) + max(size, LEAST)
        self._grown[account] = 0 if grown >= self._step else grown
        if grown >= self._step:
            await self._shrink(account, self._most_of_account, self._step)

    async def purge(self, now: int) -> None:
        """Delete what has ended, and bound the total. Raises StoreDown."""
        while await self._writer.run(partial(self._table.expire, now=now)):
            pass
        await self._shrink(None, self._most, 0)

    async def leave(self, account: str) -> None:
        """Delete what an account has. Raises StoreDown."""
        while await self._writer.run(partial(self._table.leave, account=account)):
            pass

    async def _shrink(self, account: str | None, most: int, spare: int) -> None:
        """`spare` bytes are left for what is written until the next time, and as many again."""
        excess = await self._read(partial(self._table.size, account=account)) - (most - spare)
        if excess <= 0:
            return
        excess += spare
        while excess > 0:
            taken = await self._writer.run(partial(self._table.shrink, account=account, excess=excess))
            if not taken:
                return
            excess -= taken
