"""Records of batches in SQLite, as steps of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from kimi_gateway.accounts.batches import BatchRecord, TooManyBatches, in_order, record_of, text_of
from kimi_gateway.accounts.values import NEVER

_PUT = "INSERT OR REPLACE INTO batches (account, id, due, expires, record) VALUES (?, ?, ?, ?, ?)"
_RUNNING = "SELECT count(*) FROM batches WHERE account = ? AND expires > ? AND due < ?"
_ONE = "SELECT record FROM batches WHERE account = ? AND id = ?"


def add(db: sqlite3.Connection, record: BatchRecord, most: int) -> None:
    if db.execute(_ONE, (record.account, record.id)).fetchone() is not None:
        return
    (running,) = db.execute(_RUNNING, (record.account, record.created, NEVER)).fetchone()
    if running >= most:
        raise TooManyBatches(running)
    _put(db, record)


def leave(db: sqlite3.Connection, account: str) -> None:
    """The account is deleted."""
    for record in all_of(db, account, 0):
        if record.booked:
            remove(db, record)
        else:
            _put(db, record.abandoned())


def change(db: sqlite3.Connection, old: BatchRecord, new: BatchRecord) -> bool:
    if db.execute(_ONE, (old.account, old.id)).fetchone() != (text_of(old),):
        return False
    _put(db, new)
    return True


def _put(db: sqlite3.Connection, record: BatchRecord) -> None:
    db.execute(_PUT, (record.account, record.id, record.due, record.expires, text_of(record)))


def remove(db: sqlite3.Connection, record: BatchRecord) -> None:
    db.execute("DELETE FROM batches WHERE account = ? AND id = ?", (record.account, record.id))


def find(db: sqlite3.Connection, account: str, id: str, now: int) -> BatchRecord | None:
    found = _records(db.execute(f"{_ONE} AND expires > ?", (account, id, now)))
    return found[0] if found else None


def all_of(db: sqlite3.Connection, account: str, now: int) -> list[BatchRecord]:
    return in_order(
        _records(db.execute("SELECT record FROM batches WHERE account = ? AND expires > ?", (account, now)))
    )


def due(db: sqlite3.Connection, now: int, most: int) -> list[BatchRecord]:
    db.execute("DELETE FROM batches WHERE expires <= ?", (now,))
    rows = db.execute("SELECT record FROM batches WHERE due <= ? ORDER BY due, id LIMIT ?", (now, most))
    return _records(rows)


def _records(rows: Iterable[tuple[str]]) -> list[BatchRecord]:
    return [record_of(text) for (text,) in rows]
