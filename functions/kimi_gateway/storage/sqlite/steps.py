"""The store's methods, each as one step of a SQLite transaction. A step that refuses has written nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.rules import Count, TooMuch
from kimi_gateway.accounts.store import (
    Ambiguous,
    KeyStale,
    NoCredit,
    Refused,
    Taken,
    Unknown,
    Unlimited,
    WindowFull,
)
from kimi_gateway.accounts.values import Account, Admission, Balance, Grant, Key, Limits, Usage, UsageRow

REFUSALS = (Refused, Unknown, Unlimited, Taken, TooMuch)
Row = tuple[Any, ...]

STANDING = """
SELECT a.unlimited, a.generation, a.grants, a.spendable, a.consumed, a.expired,
       k.revoked, k.minute, k.in_minute, k.minute_rank, k.hour, k.in_hour, k.hour_rank,
       k.day, k.in_day, k.day_rank, l.cost, l.expires
FROM accounts a JOIN keys k ON k.id = :key AND k.account = a.id
LEFT JOIN leases l ON l.account = a.id AND l.request = :request WHERE a.id = :account
"""
COUNT = """
UPDATE keys SET minute=?, in_minute=?, minute_rank=?, hour=?, in_hour=?, hour_rank=?,
    day=?, in_day=?, day_rank=? WHERE id=?
"""
LIFT = """
UPDATE keys SET minute_rank = max(minute_rank, :rank), hour_rank = max(hour_rank, :rank),
    day_rank = max(day_rank, :rank) WHERE account = :account
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
KEYS = """
SELECT k.id, k.digest, k.account, k.name, k.rpm, k.rph, k.rpd, k.see_balance, k.revoked, k.created,
       a.generation
FROM keys k JOIN accounts a ON a.id = k.account
"""
BALANCE = "SELECT grants, spendable, consumed, expired FROM accounts WHERE id = ?"
FITTING = """
SELECT id FROM accounts WHERE :name IN (id, name) UNION SELECT account FROM keys WHERE :name IN (id, digest)
"""


def find_key(db: sqlite3.Connection, digest: str) -> Key | None:
    row = db.execute(KEYS + "WHERE k.digest = ?", (digest,)).fetchone()
    return row and _key(row)


def _key(row: Row) -> Key:
    id, digest, account, name, rpm, rph, rpd, see_balance, revoked, created, generation = row
    limits = Limits(rpm, rph, rpd)
    return Key(id, digest, account, name, limits, bool(see_balance), bool(revoked), created, generation)


def admit(db: sqlite3.Connection, request: str, key: Key, cost: int, lease_until: int, now: int) -> Admission:
    row = db.execute(STANDING, {"key": key.id, "account": key.account, "request": request}).fetchone()
    if row is None:
        raise KeyStale
    unlimited, generation, *funds, revoked = row[:7]
    known = Count(*row[7:10]), Count(*row[10:13]), Count(*row[13:16])
    lease_cost, lease_expires = row[16:]
    balance = _balance(funds)
    if lease_cost is not None:
        counts = rules.rolled_over(known, now, rules.rank(balance.spendable + lease_cost))
        return _admission(request, key, lease_cost, lease_expires, unlimited, balance, counts)
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
    if ended:
        _end_leases(db, key.account, now)
    if not unlimited:
        balance = rules.reserved(balance, cost)
        _write_balance(db, key.account, balance)
    counts = rules.counted(counts)
    db.execute(COUNT, (*counts[0], *counts[1], *counts[2], key.id))
    db.execute("INSERT INTO leases VALUES (?,?,?,?)", (key.account, request, cost, lease_until))
    return _admission(request, key, cost, lease_until, unlimited, balance, counts)


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


def _read_balance(db: sqlite3.Connection, account: str) -> Balance:
    return _balance(db.execute(BALANCE, (account,)).fetchone())


def _write_balance(db: sqlite3.Connection, account: str, balance: Balance) -> None:
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


def settle(db: sqlite3.Connection, admission: Admission, model: str, usage: Usage, now: int) -> bool:
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        db.execute("UPDATE accounts SET consumed = consumed + ? WHERE id = ?", (cost, account))
    hour = now - now % rules.HOUR
    row = (hour, account, admission.key.id, model, 1, 0, usage.input, usage.output, cost, now)
    db.execute(COUNT_USAGE, row)
    return True


def release(db: sqlite3.Connection, admission: Admission, model: str, error: bool, now: int) -> bool:
    cost = _take_lease(db, admission)
    if cost is None:
        return False
    account = admission.key.account
    if cost:
        _write_balance(db, account, rules.returned(_read_balance(db, account), cost, now))
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
    return sum(_purge_account(db, account, now) for (account,) in accounts)


def _purge_account(db: sqlite3.Connection, account: str, now: int) -> int:
    balance = _with_ended_leases(db, account, _read_balance(db, account), now)
    _write_balance(db, account, balance)
    return _end_leases(db, account, now)


def create_account(
    db: sqlite3.Connection, account: str, name: str, credits: Grant | None, now: int
) -> Account:
    balance = Balance() if credits is None else rules.granted(Balance(), credits, now)
    row = (account, name, credits is None, now, 0, rules.packed(balance.grants))
    funds = (balance.spendable, balance.consumed, balance.expired)
    db.execute("INSERT INTO accounts VALUES (?,?,?,?,?,?,?,?,?)", (*row, *funds))
    return _shown(db, account, now)


def create_key(db: sqlite3.Connection, key: Key) -> Key:
    if db.execute("SELECT 1 FROM accounts WHERE id = ?", (key.account,)).fetchone() is None:
        raise Unknown(key.account)
    if db.execute("SELECT 1 FROM keys WHERE digest = ?", (key.digest,)).fetchone():
        raise Taken
    own = (key.limits.minute, key.limits.hour, key.limits.day)
    db.execute(
        "INSERT INTO keys (id, digest, account, name, rpm, rph, rpd, see_balance, created)"
        " VALUES (?,?,?,?,?,?,?,?,?)",
        (key.id, key.digest, key.account, key.name, *own, key.see_balance, key.created),
    )
    return _key(db.execute(KEYS + "WHERE k.id = ?", (key.id,)).fetchone())


def revoke_key(db: sqlite3.Connection, key: str) -> Key:
    found = db.execute("SELECT id, account FROM keys WHERE :key IN (id, digest)", {"key": key}).fetchone()
    if found is None:
        raise Unknown(key)
    id, account = found
    db.execute("UPDATE keys SET revoked = 1 WHERE id = ?", (id,))
    db.execute("UPDATE accounts SET generation = generation + 1 WHERE id = ?", (account,))
    return _key(db.execute(KEYS + "WHERE k.id = ?", (id,)).fetchone())


def grant(db: sqlite3.Connection, account: str, grant: Grant, now: int) -> Account:
    balance = rules.granted(_limited(db, account), grant, now)
    _write_balance(db, account, balance)
    db.execute(LIFT, {"rank": rules.rank(balance.spendable), "account": account})
    return _shown(db, account, now)


def deduct(db: sqlite3.Connection, account: str, credits: int, now: int) -> Account:
    _write_balance(db, account, rules.deducted(_limited(db, account), credits, now))
    return _shown(db, account, now)


def _limited(db: sqlite3.Connection, account: str) -> Balance:
    """The balance of a limited account. Raises Unknown, Unlimited."""
    row = db.execute("SELECT unlimited FROM accounts WHERE id = ?", (account,)).fetchone()
    if row is None:
        raise Unknown(account)
    if row[0]:
        raise Unlimited(account)
    return _read_balance(db, account)


def account(db: sqlite3.Connection, name: str, now: int) -> Account:
    fitting = db.execute(FITTING, {"name": name}).fetchall()
    if len(fitting) > 1:
        raise Ambiguous(name, [id for (id,) in fitting])
    if not fitting:
        raise Unknown(name)
    return _shown(db, fitting[0][0], now)


def accounts(db: sqlite3.Connection, now: int) -> list[Account]:
    ids = db.execute("SELECT id FROM accounts ORDER BY created, id").fetchall()
    return [_shown(db, id, now) for (id,) in ids]


def _shown(db: sqlite3.Connection, account: str, now: int) -> Account:
    _purge_account(db, account, now)
    query = "SELECT name, unlimited, created FROM accounts WHERE id = ?"
    name, unlimited, created = db.execute(query, (account,)).fetchone()
    query = "SELECT coalesce(sum(cost), 0) FROM leases WHERE account = ?"
    (reserved,) = db.execute(query, (account,)).fetchone()
    held = db.execute(KEYS + "WHERE k.account = ? ORDER BY k.created, k.id", (account,)).fetchall()
    balance = _read_balance(db, account)
    return Account(
        id=account,
        name=name,
        unlimited=bool(unlimited),
        credits=balance.spendable + reserved,
        reserved=reserved,
        consumed=balance.consumed,
        expired=balance.expired,
        created=created,
        grants=rules.unspent(balance),
        keys=tuple(_key(row) for row in held),
    )


def usage(db: sqlite3.Connection, since: int, account: str | None) -> list[UsageRow]:
    rows = db.execute(USAGE, (since - since % rules.HOUR, account))
    return [UsageRow(*row) for row in rows]
