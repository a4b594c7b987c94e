"""The record of token outages, shared by all processes on this file, as steps of a transaction.

Tokens are named by their hash. A row is replaced by the next outage of its token and model. If nobody renews
a row for a week, its token is gone.
"""

from __future__ import annotations

import sqlite3

KEPT = 7 * 86_400


def publish(db: sqlite3.Connection, token: str, model: str, cause: str, until: int) -> None:
    db.execute("INSERT OR REPLACE INTO bad_news VALUES (?,?,?,?)", (token, model, cause, until))
    db.execute("DELETE FROM bad_news WHERE until < ?", (until - KEPT,))


def retract(db: sqlite3.Connection, token: str, model: str) -> None:
    db.execute("DELETE FROM bad_news WHERE token = ? AND model = ?", (token, model))


def published(db: sqlite3.Connection) -> list[tuple[str, str, str, int]]:
    return db.execute("SELECT token, model, cause, until FROM bad_news").fetchall()


def claim(db: sqlite3.Connection, token: str, now: int, until: int) -> bool:
    """Claim the probe of a token for one process. An end too far ahead (the clock was set back)
    counts as due."""
    moved = db.execute(
        "UPDATE bad_news SET until = ? WHERE token = ? AND model = '' AND NOT (until > ? AND until <= ?)",
        (until, token, now, 2 * until - now),
    )
    return moved.rowcount == 1
