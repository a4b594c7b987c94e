"""The cache in the store's file, as steps of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from kimi_gateway.storage.cache import size
from kimi_gateway.storage.sqlite.shelves import Table

TOGETHER = 500  # names in one query
TABLE = Table("replay", "size > 0", "DELETE FROM replay WHERE id = ?")


def keep(db: sqlite3.Connection, account: str, entries: Mapping[str, bytes], until: int) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO replay (account, name, until, size, value) VALUES (?,?,?,?,?)",
        [(account, name, until, size(value), value) for name, value in entries.items()],
    )


def recall(db: sqlite3.Connection, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for start in range(0, len(names), TOGETHER):
        some = names[start : start + TOGETHER]
        places = ",".join("?" * len(some))
        # The plus keeps SQLite from using the index on `until`, which would scan all entries of the account.
        query = f"SELECT name, value FROM replay WHERE account=? AND +until>? AND name IN ({places})"  # noqa: S608
        found.update(db.execute(query, (account, now, *some)))
    return found


def forget(db: sqlite3.Connection, account: str, names: Sequence[str]) -> None:
    rows = [(account, name) for name in names]
    db.executemany("DELETE FROM replay WHERE account=? AND name=?", rows)
