"""Accounts and keys in SQLite: how they are made, found and changed, and the credits of an account."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts.store import Ambiguous, Taken, TooManyKeys, Unknown, Unlimited
from kimi_gateway.accounts.values import Account, Balance, Budget, Grant, Key, Limits
from kimi_gateway.storage.sqlite import batches, files
from kimi_gateway.storage.sqlite import budgets as meters
from kimi_gateway.storage.sqlite.steps import purge_account, read_balance, write_balance

Row = tuple[Any, ...]

KEYS = """
SELECT k.id, k.digest, k.account, k.name, k.rpm, k.rph, k.rpd, k.see_balance, k.revoked, k.created,
       a.generation, k.models, k.expires, k.note, k.suspended, k.old_digest, k.old_until,
       k.budgets, a.budgets, k.in_flight, k.tokens, k.search, k.files, k.manages, k.made_by, k.operator
FROM keys k JOIN accounts a ON a.id = k.account
"""
UPDATE = """
UPDATE keys SET name=:name, rpm=:rpm, rph=:rph, rpd=:rpd, see_balance=:see_balance, models=:models,
    expires=:expires, note=:note, suspended=:suspended, digest=:digest, old_digest=:old_digest,
    old_until=:old_until, budgets=:budgets, in_flight=:in_flight, tokens=:tokens, search=:search,
    files=:files, manages=:manages, made_by=:made_by, operator=:operator WHERE id = :id
"""
LIFT = """
UPDATE keys SET minute_rank = max(minute_rank, :rank), hour_rank = max(hour_rank, :rank),
    day_rank = max(day_rank, :rank) WHERE account = :account
"""
MOST_REVOKED = 100  # of the keys that an account's keys made; a key may make as many a day
FORGOTTEN = """
SELECT id FROM (
    SELECT id FROM keys WHERE account = :account AND made_by <> '' AND revoked
    ORDER BY created DESC, id DESC LIMIT -1 OFFSET :most
) WHERE id <> :it
"""
FITTING = """
SELECT id FROM accounts WHERE :name IN (id, name)
UNION SELECT account FROM keys WHERE :name IN (id, digest, old_digest)
"""


def find_key(db: sqlite3.Connection, digest: str) -> Key | None:
    row = db.execute(KEYS + "WHERE k.digest = :it OR k.old_digest = :it", {"it": digest}).fetchone()
    return row and rules.found_by(_key(db, row), digest)


def _key(db: sqlite3.Connection, row: Row) -> Key:
    key = _own(row)
    return replace(key, maker=_read_key(db, key.made_by)) if key.made_by else key


def _own(row: Row) -> Key:
    id, digest, account, name, rpm, rph, rpd, see_balance, revoked, created, generation, *terms = row
    models, expires, note, suspended, old_digest, old_until, own, shared, *rights = terms
    in_flight, tokens, search, files, manages, made_by, operator = rights
    return Key(
        id=id,
        digest=digest,
        account=account,
        name=name,
        limits=Limits(rpm, rph, rpd),
        see_balance=bool(see_balance),
        revoked=bool(revoked),
        created=created,
        generation=generation,
        models=tuple(models.split()),
        expires=expires,
        note=note,
        suspended=bool(suspended),
        old_digest=old_digest or "",
        old_until=old_until,
        budgets=budgets.unpacked(own),
        shared=budgets.unpacked(shared),
        in_flight=in_flight,
        tokens=tokens,
        search=bool(search),
        files=bool(files),
        manages=bool(manages),
        operator=bool(operator),
        made_by=made_by,
    )


def create_account(
    db: sqlite3.Connection, account: str, name: str, credits: Grant | None, now: int, invited_by: str
) -> Account:
    balance = Balance() if credits is None else rules.granted(Balance(), credits, now)
    row = (account, name, credits is None, now, 0, rules.packed(balance.grants))
    funds = (balance.spendable, balance.consumed, balance.expired)
    db.execute("INSERT INTO accounts VALUES (?,?,?,?,?,?,?,?,?,'',?)", (*row, *funds, invited_by))
    return _shown(db, account, now)


def open_account(db: sqlite3.Connection, credits: Grant, key: Key, now: int, invited_by: str) -> Account:
    _refuse_taken(db, key.digest)  # before anything is written
    create_account(db, key.account, "", credits, now, invited_by)
    create_key(db, key)
    return _shown(db, key.account, now)


def create_key(db: sqlite3.Connection, key: Key, most: int | None = None) -> Key:
    if db.execute("SELECT 1 FROM accounts WHERE id = ?", (key.account,)).fetchone() is None:
        raise Unknown(key.account)
    _refuse_taken(db, key.digest)
    query = "SELECT count(*) FROM keys WHERE account = ? AND NOT revoked"
    if most is not None and db.execute(query, (key.account,)).fetchone()[0] >= most:
        raise TooManyKeys(key.account)
    db.execute(
        "INSERT INTO keys (id, digest, account, name, see_balance, created) VALUES (?,?,?,?,?,?)",
        (key.id, key.digest, key.account, key.name, key.see_balance, key.created),
    )
    db.execute(UPDATE, _columns(key))
    return _read_key(db, key.id)


def _columns(key: Key) -> dict[str, object]:
    """The values that an update may change, by column."""
    return {
        "id": key.id,
        "name": key.name,
        "rpm": key.limits.minute,
        "rph": key.limits.hour,
        "rpd": key.limits.day,
        "see_balance": key.see_balance,
        "models": " ".join(key.models),
        "expires": key.expires,
        "note": key.note,
        "suspended": key.suspended,
        "digest": key.digest,
        "old_digest": key.old_digest or None,
        "old_until": key.old_until,
        "budgets": budgets.packed(key.budgets),
        "in_flight": key.in_flight,
        "tokens": key.tokens,
        "search": key.search,
        "files": key.files,
        "manages": key.manages,
        "operator": key.operator,
        "made_by": key.made_by,
    }


def _read_key(db: sqlite3.Connection, name: str) -> Key:
    """By id or digest. Raises Unknown."""
    row = db.execute(
        KEYS + "WHERE k.id = :it OR k.digest = :it OR k.old_digest = :it", {"it": name}
    ).fetchone()
    if row is None:
        raise Unknown(name)
    return _key(db, row)


def _refuse_taken(db: sqlite3.Connection, digest: str, but: str = "") -> None:
    query = "SELECT 1 FROM keys WHERE (digest = :it OR old_digest = :it) AND id <> :but"
    if db.execute(query, {"it": digest, "but": but}).fetchone():
        raise Taken


def change_key(db: sqlite3.Connection, name: str, change: Callable[[Key], Key]) -> Key:
    """Raises Unknown, Taken."""
    key = _read_key(db, name)
    wanted = change(key)
    _refuse_taken(db, wanted.digest, but=key.id)
    db.execute(UPDATE, _columns(wanted))
    return _changed(db, key)


def revoke_key(db: sqlite3.Connection, name: str) -> Key:
    key = _read_key(db, name)
    db.execute("UPDATE keys SET revoked = 1 WHERE id = ?", (key.id,))
    of = {"account": key.account, "most": MOST_REVOKED, "it": key.id}
    for (old,) in db.execute(FORGOTTEN, of).fetchall():
        db.execute("DELETE FROM keys WHERE id = ?", (old,))
        db.execute("DELETE FROM spent WHERE account = ? AND scope = ?", (key.account, old))
    return _changed(db, key)


def _changed(db: sqlite3.Connection, key: Key) -> Key:
    db.execute("UPDATE accounts SET generation = generation + 1 WHERE id = ?", (key.account,))
    return _read_key(db, key.id)


def rename_account(db: sqlite3.Connection, account: str, name: str, now: int) -> Account:
    if not db.execute("UPDATE accounts SET name = ? WHERE id = ?", (name, account)).rowcount:
        raise Unknown(account)
    return _shown(db, account, now)


def set_budgets(db: sqlite3.Connection, account: str, wanted: Sequence[Budget], now: int) -> Account:
    query = "UPDATE accounts SET budgets = ?, generation = generation + 1 WHERE id = ?"
    if not db.execute(query, (budgets.packed(wanted), account)).rowcount:
        raise Unknown(account)
    return _shown(db, account, now)


def delete_account(db: sqlite3.Connection, account: str) -> None:
    if not db.execute("DELETE FROM accounts WHERE id = ?", (account,)).rowcount:
        raise Unknown(account)
    for table in ("keys", "leases", "usage", "failures", "replay", "spent", "answers", "imports", "funded"):
        db.execute(f"DELETE FROM {table} WHERE account = ?", (account,))  # noqa: S608 - names of ours
    files.leave(db, account)
    batches.leave(db, account)


def grant(db: sqlite3.Connection, account: str, grant: Grant, now: int) -> Account:
    balance = rules.granted(limited(db, account), grant, now)
    write_balance(db, account, balance)
    db.execute(LIFT, {"rank": rules.rank(balance.spendable), "account": account})
    return _shown(db, account, now)


def deduct(db: sqlite3.Connection, account: str, credits: int, now: int) -> Account:
    write_balance(db, account, rules.deducted(limited(db, account), credits, now))
    return _shown(db, account, now)


def limited(db: sqlite3.Connection, account: str) -> Balance:
    """The balance of an account that has one. Raises Unknown, Unlimited."""
    row = db.execute("SELECT unlimited FROM accounts WHERE id = ?", (account,)).fetchone()
    if row is None:
        raise Unknown(account)
    if row[0]:
        raise Unlimited(account)
    return read_balance(db, account)


def account(db: sqlite3.Connection, name: str, now: int) -> Account:
    fitting = db.execute(FITTING, {"name": name}).fetchall()
    if len(fitting) > 1:
        raise Ambiguous(name, [id for (id,) in fitting])
    if not fitting:
        raise Unknown(name)
    return _shown(db, fitting[0][0], now)


def ids(db: sqlite3.Connection) -> list[str]:
    return [id for (id,) in db.execute("SELECT id FROM accounts ORDER BY created, id")]


def some(db: sqlite3.Connection, ids: Sequence[str], now: int) -> list[Account]:
    """Show these accounts, without those that are deleted by now."""
    known = "SELECT 1 FROM accounts WHERE id = ?"
    return [_shown(db, id, now) for id in ids if db.execute(known, (id,)).fetchone()]


def _shown(db: sqlite3.Connection, account: str, now: int) -> Account:
    purge_account(db, account, now)
    query = "SELECT name, unlimited, created, budgets, invited_by FROM accounts WHERE id = ?"
    name, unlimited, created, shared, invited_by = db.execute(query, (account,)).fetchone()
    query = "SELECT coalesce(sum(cost), 0) FROM leases WHERE account = ?"
    (reserved,) = db.execute(query, (account,)).fetchone()
    rows = db.execute(KEYS + "WHERE k.account = ? ORDER BY k.created, k.id", (account,)).fetchall()
    own = {row[0]: _own(row) for row in rows}
    held = tuple(replace(key, maker=own[key.made_by]) if key.made_by else key for key in own.values())
    balance = read_balance(db, account)
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
        keys=held,
        budgets=budgets.unpacked(shared),
        spent=budgets.spent(
            held, budgets.unpacked(shared), now, lambda meter: meters.amount(db, account, meter)
        ),
        invited_by=invited_by,
    )
