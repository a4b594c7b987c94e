"""The cache in the store's file, as steps of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from kimi_gateway.storage.cache import MOST, MOST_OF_ACCOUNT, size

TOGETHER = 500  # names in one query
# The oldest entries above the bound: at most `?` bytes of the newest stay.
_OVER = """
SELECT id FROM (
    SELECT id, sum(size) OVER (ORDER BY until DESC, id DESC) AS total FROM replay{of_account}
) WHERE total > ?
"""
SHRINK = "DELETE FROM replay WHERE id IN (" + _OVER.format(of_account="") + ")"  # noqa: S608
SHRINK_ACCOUNT = "DELETE FROM replay WHERE id IN (" + _OVER.format(of_account=" WHERE account = ?") + ")"  # noqa: S608
SIZE = "SELECT coalesce(sum(size), 0) FROM replay"


def keep(
    db: sqlite3.Connection,
    account: str,
    entries: Mapping[str, bytes],
    until: int,
    most: int = MOST_OF_ACCOUNT,
) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO replay (account, name, until, size, value) VALUES (?,?,?,?,?)",
        [(account, name, until, size(value), value) for name, value in entries.items()],
    )
    (total,) = db.execute(f"{SIZE} WHERE account = ?", (account,)).fetchone()
    if total > most:
        db.execute(
            SHRINK_ACCOUNT, (account, most * 7 // 8)
        )  # shrink further, so that a full account is not shrunk each time


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


def purge(db: sqlite3.Connection, now: int, most: int = MOST) -> None:
    """Delete expired entries and bound the total."""
    db.execute("DELETE FROM replay WHERE until <= ?", (now,))
    (total,) = db.execute(SIZE).fetchone()
    if total > most:
        db.execute(SHRINK, (most,))
