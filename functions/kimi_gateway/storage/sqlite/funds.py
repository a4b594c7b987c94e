"""Changes of a balance that are made once, and counts of events, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.moving import place_of
from kimi_gateway.accounts.store import Unknown
from kimi_gateway.accounts.values import Balance
from kimi_gateway.storage.sqlite.accounts import LIFT, limited
from kimi_gateway.storage.sqlite.steps import write_balance

FUNDED = "SELECT credits FROM funded WHERE account = ? AND name IN (?, ?)"
MOVED = "#"  # before the place of a name that came with an import
COUNT = "INSERT INTO tallies VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET count = count + 1"


def fund(
    db: sqlite3.Connection, account: str, name: str, change: Callable[[Balance], Balance], now: int
) -> bool:
    before = rules.folded(limited(db, account), now)
    if db.execute(FUNDED, (account, name, MOVED + place_of(name))).fetchone():
        return False
    after = change(before)
    credits = after.spendable - before.spendable
    write_balance(db, account, after)
    db.execute("INSERT INTO funded VALUES (?,?,?)", (account, name, credits))
    if credits > 0:
        db.execute(LIFT, {"rank": rules.rank(after.spendable), "account": account})
    return True


def funded(db: sqlite3.Connection, account: str, name: str) -> int | None:
    if db.execute("SELECT 1 FROM accounts WHERE id = ?", (account,)).fetchone() is None:
        raise Unknown(account)
    row = db.execute(FUNDED, (account, name, MOVED + place_of(name))).fetchone()
    return row[0] if row else None


def tally(db: sqlite3.Connection, name: str, most: int, until: int, now: int) -> bool:
    db.execute("DELETE FROM tallies WHERE until <= ?", (now,))
    row = db.execute("SELECT count FROM tallies WHERE name = ?", (name,)).fetchone()
    if (row[0] if row else 0) >= most:
        return False
    db.execute(COUNT, (name, until))
    return True
