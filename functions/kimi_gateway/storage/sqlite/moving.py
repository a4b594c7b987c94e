"""Accounts that are moved from and to the store's file."""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts.moving import Moved, Snapshot, place_of
from kimi_gateway.accounts.store import Taken
from kimi_gateway.accounts.values import Key
from kimi_gateway.storage.sqlite import accounts as directory
from kimi_gateway.storage.sqlite import budgets as meters
from kimi_gateway.storage.sqlite import usage as rows
from kimi_gateway.storage.sqlite.funds import MOVED
from kimi_gateway.storage.sqlite.writer import Writer

ACCOUNT = """
INSERT INTO accounts (id, name, unlimited, created, generation, grants, spendable, consumed, expired, budgets,
    invited_by)
VALUES (?,?,?,?,?,?,?,?,?,?,?)
"""


class SqliteMover:
    """`storage.moving.Mover`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def snapshot(self, now: int) -> Snapshot:
        """All accounts at one moment, also while requests run."""
        return await self._writer.run(
            lambda db: Snapshot(
                directory.some(db, directory.ids(db), now), rows.rows(db, 0, None), _funded(db)
            )
        )

    async def restore(self, moved: Moved, now: int) -> bool:
        return await self._writer.run(lambda db: restore(db, moved, now))


def restore(db: sqlite3.Connection, moved: Moved, now: int) -> bool:
    account = moved.account
    if db.execute("SELECT 1 FROM accounts WHERE id = ?", (account.id,)).fetchone():
        known = db.execute("SELECT mark FROM imports WHERE account = ?", (account.id,)).fetchone()
        if known == (moved.mark,):
            return False
        raise Taken(account.id)
    for key in account.keys:
        _refuse_taken(db, key)
    # No process may take a key that it knew before for one of these, so their generation is a new one.
    held = (account.id, account.name, account.unlimited, account.created, now, rules.packed(account.grants))
    funds = (account.credits, account.consumed, account.expired, budgets.packed(account.budgets))
    db.execute(ACCOUNT, (*held, *funds, account.invited_by))
    for key in sorted(account.keys, key=lambda key: bool(key.made_by)):  # a maker before what it made
        directory.create_key(db, key)
        db.execute("UPDATE keys SET revoked = ? WHERE id = ?", (key.revoked, key.id))
    for meter, amount in moved.counters:
        meters.book(db, account.id, meter, amount)
    for row in moved.usage:
        rows.count(db, row)
    funded = [(account.id, f"{MOVED}{place}", credits) for place, credits in moved.funded]
    db.executemany("INSERT INTO funded VALUES (?,?,?)", funded)
    db.execute("INSERT OR REPLACE INTO imports VALUES (?,?)", (account.id, moved.mark))
    return True


def _funded(db: sqlite3.Connection) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for account, name, credits in db.execute("SELECT account, name, credits FROM funded"):
        place = name.removeprefix(MOVED) if name.startswith(MOVED) else place_of(name)
        found[account].append((place, credits))
    return found


def _refuse_taken(db: sqlite3.Connection, key: Key) -> None:
    digests = [digest for digest in (key.digest, key.old_digest) if digest]
    places = ",".join("?" * len(digests))
    query = f"SELECT 1 FROM keys WHERE id = ? OR digest IN ({places}) OR old_digest IN ({places})"  # noqa: S608
    if db.execute(query, (key.id, *digests, *digests)).fetchone():
        raise Taken(key.id)
