"""The counters of budgets in SQLite, as parts of a transaction."""

from __future__ import annotations

import sqlite3

from kimi_gateway.accounts import budgets
from kimi_gateway.accounts.budgets import Meter
from kimi_gateway.accounts.values import Admission, Amount, Bound, Key

OF = "account = ? AND scope = ? AND unit = ? AND period = ?"
Db = sqlite3.Connection | sqlite3.Cursor
BOOK = """
INSERT INTO spent VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount
"""


def amount(db: Db, account: str, meter: Meter) -> int:
    row = db.execute(
        f"SELECT amount FROM spent WHERE {OF} AND bucket = ?",  # noqa: S608 - a constant
        (*_place(account, meter), meter.bucket),
    ).fetchone()
    return row[0] if row else 0


def _place(account: str, meter: Meter) -> tuple[str, str, str, str]:
    return account, meter.scope, meter.budget.unit, meter.budget.period


def book(db: Db, account: str, meter: Meter, change: int) -> None:
    db.execute(BOOK, (*_place(account, meter), meter.bucket, change))


Counters = list[tuple[Meter, int]]


def read(db: Db, key: Key, bound: Bound | None) -> Counters:
    """The budgets of a request, and what is spent of each."""
    metered = () if bound is None else budgets.meters(key, bound.at)
    return [(meter, amount(db, key.account, meter)) for meter in metered]


def reserve(db: Db, key: Key, bound: Bound, output: int, counters: Counters) -> Counters:
    """Returns the counters as they are then."""
    changed = []
    for meter, spent in counters:
        wanted = budgets.reserved(meter, bound, output)
        book(db, key.account, meter, wanted)
        changed.append((meter, spent + wanted))
        if not spent:  # the period may be new; then those before the last one can go
            old = (*_place(key.account, meter), meter.bucket - 1)
            db.execute(f"DELETE FROM spent WHERE {OF} AND bucket < ?", old)  # noqa: S608 - a constant
    return changed


def correct(db: Db, admission: Admission, billed: Amount | None, now: int) -> None:
    key = admission.key
    for meter, change in budgets.corrections(key, admission.bound, admission.output, billed, now):
        book(db, key.account, meter, change)
