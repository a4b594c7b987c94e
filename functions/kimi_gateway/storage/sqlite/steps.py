"""The store's methods, each as one step of a SQLite transaction. A step that refuses has written nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts.files import NoRoom
from kimi_gateway.accounts.rules import Count, TooMuch
from kimi_gateway.accounts.store import (
    NOTHING,
    KeyStale,
    NoCredit,
    Refused,
    Taken,
    Unknown,
    Unlimited,
    WindowFull,
)
from kimi_gateway.accounts.values import Admission, Amount, Balance, Bound, Key, Usage, UsageRow
from kimi_gateway.storage.sqlite import budgets as meters

REFUSALS = (Refused, Unknown, Unlimited, Taken, TooMuch, NoRoom)
Row = tuple[Any, ...]

STANDING = """
SELECT a.unlimited, a.generation, a.grants, a.spendable, a.consumed, a.expired,
       k.revoked, k.minute, k.in_minute, k.minute_rank, k.hour, k.in_hour, k.hour_rank,
       k.day, k.in_day, k.day_rank, l.cost, l.expires, l.output
FROM accounts a JOIN keys k ON k.id = :key AND k.account = a.id
LEFT JOIN leases l ON l.account = a.id AND l.request = :request WHERE a.id = :account
"""
COUNT = """
UPDATE keys SET minute=?, in_minute=?, minute_rank=?, hour=?, in_hour=?, hour_rank=?,
    day=?, in_day=?, day_rank=? WHERE id=?
"""
COUNT_USAGE = """
INSERT INTO usage VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests, errors = errors + excluded.errors,
    input = input + excluded.input, output = output + excluded.output,
    credits = credits + excluded.credits, last = max(last, excluded.last)
"""
USAGE = """
SELECT hour, account, key, model, requests, errors, input, output, credits, last FROM usage
WHERE hour >= ? AND account = coalesce(?, account) ORDER BY hour, account, key, model
"""
BALANCE = "SELECT grants, spendable, consumed, expired FROM accounts WHERE id = ?"


def admit(
    db: sqlite3.Connection,
    request: str,
    key: Key,
    cost: int,
    lease_until: int,
    now: int,
    bound: Bound | None = None,
) -> Admission:
    row = db.execute(STANDING, {"key": key.id, "account": key.account, "request": request}).fetchone()
    if row is None:
        raise KeyStale
    unlimited, generation, *funds, revoked = row[:7]
    known = Count(*row[7:10]), Count(*row[10:13]), Count(*row[13:16])
    lease_cost, lease_expires, output = row[16:]
    balance = _balance(funds)
    if lease_cost is not None:
        counts = rules.rolled_over(known, now, rules.rank(balance.spendable + lease_cost))
        again = _admission(request, key, lease_cost, lease_expires, unlimited, balance, counts)
        return again if bound is None else _budgeted(db, again, bound, output)
    if revoked or generation != key.generation:
        raise KeyStale
    ended = False
    if unlimited:
        cost = 0
    else:
        balance = rules.folded(balance, now)
        if balance.spendable < cost:
            balance, ended = _with_ended_leases(db, key.account, balance, now), True
        if balance.spendable < cost:
            raise NoCredit
    counts = rules.rolled_over(known, now, rules.rank(balance.spendable))
    limits = rules.limits_in_force(key.limits, None if unlimited else counts)
    if full := rules.full_window(limits, counts):
        raise WindowFull(full)
    output = meters.fit(db, key, bound)
    if ended:
        _end_leases(db, key.account, now)
    if not unlimited:
        balance = rules.reserved(balance, cost)
        write_balance(db, key.account, balance)
    counts = rules.counted(counts)
    db.execute(COUNT, (*counts[0], *counts[1], *counts[2], key.id))
    db.execute("INSERT INTO leases VALUES (?,?,?,?,?)", (key.account, request, cost, lease_until, output))
    admission = _admission(request, key, cost, lease_until, unlimited, balance, counts)
    if bound is None:
        return admission
    meters.reserve(db, key, bound, output)
    return _budgeted(db, admission, bound, output)


def hold(
    db: sqlite3.Connection, request: str, key: Key, lease_until: int, now: int, bound: Bound
) -> Admission:
    row = db.execute(STANDING, {"key": key.id, "account": key.account, "request": request}).fetchone()
    if row is None:
        raise KeyStale
    unlimited, generation, *funds, revoked = row[:7]
    _, lease_expires, output = row[16:]
    if lease_expires is None:
        if revoked or generation != key.generation:
            raise KeyStale
        lease_expires, output = lease_until, meters.fit(db, key, bound)
        db.execute("INSERT INTO leases VALUES (?,?,?,?,?)", (key.account, request, 0, lease_until, output))
        meters.reserve(db, key, bound, output)
    balance = _balance(funds)
    counted = Count(*row[7:10]), Count(*row[10:13]), Count(*row[13:16])
    counts = rules.rolled_over(counted, now, rules.rank(balance.spendable))
    held = _admission(request, key, 0, lease_expires, unlimited, balance, counts)
    return _budgeted(db, held, bound, output)


def _budgeted(db: sqlite3.Connection, admission: Admission, bound: Bound, output: int) -> Admission:
    key = admission.key
    tokens = budgets.token_window(key, bound, lambda meter: meters.amount(db, key.account, meter))
    return replace(admission, bound=bound, output=output, tokens=tokens)


def _admission(
    request: str, key: Key, cost: int, expires: int, unlimited: int, balance: Balance, counts: rules.Counts
) -> Admission:
    spendable = None if unlimited else balance.spendable
    limits = rules.limits_in_force(key.limits, None if unlimited else counts)
    window = rules.minute_window(limits, counts)
    return Admission(request, key, cost, expires, spendable, window)


def _balance(funds: Sequence[Any]) -> Balance:
    grants, spendable, consumed, expired = funds
    return Balance(rules.unpacked(grants), spendable, consumed, expired)


def read_balance(db: sqlite3.Connection, account: str) -> Balance:
    return _balance(db.execute(BALANCE, (account,)).fetchone())


def write_balance(db: sqlite3.Connection, account: str, balance: Balance) -> None:
    funds = (rules.packed(balance.grants), balance.spendable, balance.consumed, balance.expired, account)
    db.execute("UPDATE accounts SET grants=?, spendable=?, consumed=?, expired=? WHERE id=?", funds)


def _with_ended_leases(db: sqlite3.Connection, account: str, balance: Balance, now: int) -> Balance:
    """The balance after the account's expired leases have ended; writes nothing."""
    query = "SELECT coalesce(sum(cost), 0) FROM leases WHERE account = ? AND expires <= ?"
    (credits,) = db.execute(query, (account, now)).fetchone()
    return rules.returned(balance, credits, now)


def _end_leases(db: sqlite3.Connection, account: str, now: int) -> int:
    return db.execute("DELETE FROM leases WHERE account = ? AND expires <= ?", (account, now)).rowcount


def _take_lease(db: sqlite3.Connection, admission: Admission) -> int | None:
    """Remove the lease; returns its cost, None if it is gone."""
    query = "DELETE FROM leases WHERE account = ? AND request = ? RETURNING cost"
    rows = db.execute(query, (admission.key.account, admission.id)).fetchall()
    return rows[0][0] if rows else None


def settle(
    db: sqlite3.Connection,
    admission: Admission,
    model: str,
    usage: Usage,
    now: int,
    billed: Amount | None = None,
) -> bool:
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        db.execute("UPDATE accounts SET consumed = consumed + ? WHERE id = ?", (cost, account))
    meters.correct(db, admission, billed, now)
    hour = now - now % rules.HOUR
    row = (hour, account, admission.key.id, model, 1, 0, usage.input, usage.output, cost, now)
    db.execute(COUNT_USAGE, row)
    return True


def release(
    db: sqlite3.Connection,
    admission: Admission,
    model: str,
    error: bool,
    now: int,
    billed: Amount | None = NOTHING,
) -> bool:
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        write_balance(db, account, rules.returned(read_balance(db, account), cost, now))
    meters.correct(db, admission, billed, now)
    if error:
        hour = now - now % rules.HOUR
        db.execute(COUNT_USAGE, (hour, account, admission.key.id, model, 0, 1, 0, 0, 0, now))
    return True


def renew(db: sqlite3.Connection, admissions: Sequence[Admission], lease_until: int) -> None:
    db.executemany(
        "UPDATE leases SET expires = max(expires, ?) WHERE account = ? AND request = ?",
        [(lease_until, admission.key.account, admission.id) for admission in admissions],
    )


def purge(db: sqlite3.Connection, now: int) -> int:
    accounts = db.execute("SELECT DISTINCT account FROM leases WHERE expires <= ?", (now,)).fetchall()
    return sum(purge_account(db, account, now) for (account,) in accounts)


def purge_account(db: sqlite3.Connection, account: str, now: int) -> int:
    balance = _with_ended_leases(db, account, read_balance(db, account), now)
    write_balance(db, account, balance)
    return _end_leases(db, account, now)


def usage(db: sqlite3.Connection, since: int, account: str | None) -> list[UsageRow]:
    rows = db.execute(USAGE, (since - since % rules.HOUR, account))
    return [UsageRow(*row) for row in rows]
