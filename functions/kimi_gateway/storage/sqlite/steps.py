"""The store's methods, each as one step of a SQLite transaction. A step that refuses has written nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.files import NoRoom
from kimi_gateway.accounts.rules import Count, TooMuch
from kimi_gateway.accounts.store import (
    NOTHING,
    UNUSED,
    InFlightFull,
    KeyStale,
    NoCredit,
    Refused,
    Taken,
    TooManyKeys,
    Unknown,
    Unlimited,
    WindowFull,
)
from kimi_gateway.accounts.values import Admission, Amount, Balance, Bound, Key, Limits, Usage
from kimi_gateway.storage.sqlite import budgets as meters
from kimi_gateway.storage.sqlite import usage as rows

REFUSALS = (Refused, Unknown, Unlimited, Taken, TooManyKeys, TooMuch, NoRoom)
Row = tuple[Any, ...]
Db = meters.Db  # a cursor for steps that read one row at a time
Standing = Sequence[tuple[Limits, rules.Counts]]

RUNNING = "SELECT count(*) FROM leases WHERE account = :account AND :key IN (key, maker)"
COUNTS = """
SELECT minute, in_minute, minute_rank, hour, in_hour, hour_rank, day, in_day, day_rank FROM keys WHERE id = ?
"""
STANDING = """
SELECT a.unlimited, a.generation, a.grants, a.spendable, a.consumed, a.expired,
       k.revoked, k.minute, k.in_minute, k.minute_rank, k.hour, k.in_hour, k.hour_rank,
       k.day, k.in_day, k.day_rank, l.cost, l.expires, l.output
FROM accounts a JOIN keys k ON k.id = ? AND k.account = a.id
LEFT JOIN leases l ON l.account = a.id AND l.request = ? WHERE a.id = ?
"""
COUNT = """
UPDATE keys SET minute=?, in_minute=?, minute_rank=?, hour=?, in_hour=?, hour_rank=?,
    day=?, in_day=?, day_rank=? WHERE id=?
"""
END_LEASE = "DELETE FROM leases WHERE account = ? AND request = ?"
BALANCE = "SELECT grants, spendable, consumed, expired FROM accounts WHERE id = ?"


def admit(
    connection: sqlite3.Connection,
    request: str,
    key: Key,
    cost: int,
    lease_until: int,
    now: int,
    bound: Bound | None = None,
) -> Admission:
    db = connection.cursor()
    row = db.execute(STANDING, (key.id, request, key.account)).fetchone()
    if row is None:
        raise KeyStale
    unlimited, generation, *funds, revoked = row[:7]
    known = _known(row[7:16])
    lease_cost, lease_expires, output = row[16:]
    balance = _balance(funds)
    if lease_cost is not None:
        rank = rules.rank(balance.spendable + lease_cost)
        standing = _standing(db, key, unlimited, known, now, rank)
        again = _admission(request, key, lease_cost, lease_expires, unlimited, balance, standing)
        return again if bound is None else _budgeted(db, again, bound, output)
    if revoked or generation != key.generation:
        raise KeyStale
    ended = False
    if unlimited:
        cost = 0
    else:
        stored, balance = balance, rules.folded(balance, now)
        if balance.spendable < cost:
            balance, ended = _with_ended_leases(db, key.account, balance, now), True
        if balance.spendable < cost:
            raise NoCredit
    standing = _standing(db, key, unlimited, known, now, rules.rank(balance.spendable))
    if full := rules.last([rules.full_window(*each) for each in standing]):
        raise WindowFull(full)
    if (limit := rules.crowded(key, lambda id: _running(db, key.account, id))) is not None:
        if not _has_ended_counted(db, key.account, now):
            raise InFlightFull(limit)
        purge_account(db, key.account, now)
        return admit(connection, request, key, cost, lease_until, now, bound)
    counters = meters.read(db, key, bound)
    output = 0 if bound is None else budgets.fitted(bound, counters)
    if ended:
        _end_leases(db, key.account, now)
    if not unlimited:
        balance = _reserve(db, key.account, balance, cost, whole=ended or balance is not stored)
    standing = [(limits, rules.counted(counts)) for limits, counts in standing]
    for (each, _), (_, counts) in zip(rules.counting(key, bool(unlimited)), standing, strict=True):
        db.execute(COUNT, (*counts[0], *counts[1], *counts[2], each.id))
    counted = [each.id if each.in_flight is not None else "" for each in (key, key.root)]
    lease = (key.account, request, cost, lease_until, output, *counted)
    db.execute("INSERT INTO leases VALUES (?,?,?,?,?,?,?)", lease)
    admission = _admission(request, key, cost, lease_until, unlimited, balance, standing)
    if bound is None:
        return admission
    counters = meters.reserve(db, key, bound, output, counters)
    tokens = budgets.token_window(key, bound, dict(counters).__getitem__)
    return replace(admission, bound=bound, output=output, tokens=tokens)


def _reserve(db: Db, account: str, balance: Balance, cost: int, whole: bool) -> Balance:
    """Write the balance with its reservation; without `whole` nothing else of it has changed."""
    if whole:
        write_balance(db, account, rules.reserved(balance, cost))
    elif cost:
        db.execute("UPDATE accounts SET spendable = spendable - ? WHERE id = ?", (cost, account))
    return rules.reserved(balance, cost)


def hold(
    db: sqlite3.Connection, request: str, key: Key, lease_until: int, now: int, bound: Bound
) -> Admission:
    row = db.execute(STANDING, (key.id, request, key.account)).fetchone()
    if row is None:
        raise KeyStale
    unlimited, generation, *funds, revoked = row[:7]
    _, lease_expires, output = row[16:]
    if lease_expires is None:
        if revoked or generation != key.generation:
            raise KeyStale
        counters = meters.read(db, key, bound)
        lease_expires, output = lease_until, budgets.fitted(bound, counters)
        db.execute(
            "INSERT INTO leases VALUES (?,?,?,?,?,?,?)",
            (key.account, request, 0, lease_until, output, "", ""),
        )
        meters.reserve(db, key, bound, output, counters)
    balance = _balance(funds)
    standing = _standing(db, key, unlimited, _known(row[7:16]), now, rules.rank(balance.spendable))
    held = _admission(request, rules.uncounted(key), 0, lease_expires, unlimited, balance, standing)
    return _budgeted(db, held, bound, output)


def _known(row: Sequence[Any]) -> rules.Counts:
    return Count(*row[:3]), Count(*row[3:6]), Count(*row[6:])


def _standing(db: Db, key: Key, unlimited: int, known: rules.Counts, now: int, rank: int) -> Standing:
    """The limits in force, and the counts, of each key in whose windows a request counts. `known` are the
    stored counts of `key`."""
    standing = []
    for each, tiered in rules.counting(key, bool(unlimited)):
        stored = known if each is key else _known(db.execute(COUNTS, (each.id,)).fetchone())
        counts = rules.rolled_over(stored, now, rank)
        standing.append((rules.limits_in_force(each.limits, counts if tiered else None), counts))
    return standing


def standing_of(db: Db, key: Key, unlimited: bool, now: int, rank: int) -> Standing:
    """The same, with the stored counts read."""
    return _standing(db, key, unlimited, _known(db.execute(COUNTS, (key.id,)).fetchone()), now, rank)


def _running(db: Db, account: str, key: str) -> int:
    """The requests that count as running for a key."""
    found: int = db.execute(RUNNING, {"account": account, "key": key}).fetchone()[0]
    return found


def _has_ended_counted(db: Db, account: str, now: int) -> bool:
    query = "SELECT 1 FROM leases WHERE account = ? AND expires <= ? AND (key <> '' OR maker <> '')"
    return db.execute(query, (account, now)).fetchone() is not None


def _budgeted(db: Db, admission: Admission, bound: Bound, output: int) -> Admission:
    key = admission.key
    tokens = budgets.token_window(key, bound, lambda meter: meters.amount(db, key.account, meter))
    return replace(admission, bound=bound, output=output, tokens=tokens)


def _admission(
    request: str, key: Key, cost: int, expires: int, unlimited: int, balance: Balance, standing: Standing
) -> Admission:
    spendable = None if unlimited else balance.spendable
    window = rules.tightest([rules.minute_window(*each) for each in standing])
    return Admission(request, key, cost, expires, spendable, window)


def _balance(funds: Sequence[Any]) -> Balance:
    grants, spendable, consumed, expired = funds
    return Balance(rules.unpacked(grants), spendable, consumed, expired)


def read_balance(db: Db, account: str) -> Balance:
    return _balance(db.execute(BALANCE, (account,)).fetchone())


def write_balance(db: Db, account: str, balance: Balance) -> None:
    funds = (rules.packed(balance.grants), balance.spendable, balance.consumed, balance.expired, account)
    db.execute("UPDATE accounts SET grants=?, spendable=?, consumed=?, expired=? WHERE id=?", funds)


def _with_ended_leases(db: Db, account: str, balance: Balance, now: int) -> Balance:
    """The balance after the account's expired leases have ended; writes nothing."""
    query = "SELECT coalesce(sum(cost), 0) FROM leases WHERE account = ? AND expires <= ?"
    (credits,) = db.execute(query, (account, now)).fetchone()
    return rules.returned(balance, credits, now)


def _end_leases(db: Db, account: str, now: int) -> int:
    return db.execute("DELETE FROM leases WHERE account = ? AND expires <= ?", (account, now)).rowcount


def _take_lease(db: Db, admission: Admission) -> int | None:
    """Remove the lease; returns its cost, None if it is gone."""
    of = admission.key.account, admission.id
    if db.execute(f"{END_LEASE} AND cost = ?", (*of, admission.cost)).rowcount:
        return admission.cost
    rows = db.execute(f"{END_LEASE} RETURNING cost", of).fetchall()  # dearer: the row goes through a table
    return rows[0][0] if rows else None


def settle(
    connection: sqlite3.Connection,
    admission: Admission,
    model: str,
    usage: Usage,
    now: int,
    billed: Amount | None = None,
) -> bool:
    db = connection.cursor()
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        db.execute("UPDATE accounts SET consumed = consumed + ? WHERE id = ?", (cost, account))
    meters.correct(db, admission, billed, now)
    rows.count(db, usages.settled(admission, model, usage, cost, now))
    return True


def release(
    db: sqlite3.Connection,
    admission: Admission,
    model: str,
    error: bool,
    now: int,
    billed: Amount | None = NOTHING,
    usage: Usage = UNUSED,
    cause: str = "",
) -> bool:
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        write_balance(db, account, rules.returned(read_balance(db, account), cost, now))
    meters.correct(db, admission, billed, now)
    rows.count(db, usages.released(admission, model, error, usage, cause, now))
    return True


def renew(db: sqlite3.Connection, admissions: Sequence[Admission], lease_until: int) -> None:
    db.executemany(
        "UPDATE leases SET expires = max(expires, ?) WHERE account = ? AND request = ?",
        [(lease_until, admission.key.account, admission.id) for admission in admissions],
    )


def purge(db: sqlite3.Connection, now: int) -> int:
    accounts = db.execute("SELECT DISTINCT account FROM leases WHERE expires <= ?", (now,)).fetchall()
    return sum(purge_account(db, account, now) for (account,) in accounts)


def purge_account(db: Db, account: str, now: int) -> int:
    balance = _with_ended_leases(db, account, read_balance(db, account), now)
    write_balance(db, account, balance)
    return _end_leases(db, account, now)
