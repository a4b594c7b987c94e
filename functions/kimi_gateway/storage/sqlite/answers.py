"""Kept answers in the store's file."""

from __future__ import annotations

import sqlite3

from kimi_gateway.storage.answers import Claim
from kimi_gateway.storage.sqlite.shelves import Shelves, Table
from kimi_gateway.storage.sqlite.writer import Writer

FIND = (
    "SELECT fingerprint, owner, until, done, value FROM answers WHERE account = ? AND name = ? AND until > ?"
)
OWN = "account = ? AND name = ? AND owner = ?"
KEEP = f"UPDATE answers SET done = 1, value = ?, size = ?, until = ? WHERE {OWN} AND NOT done"  # noqa: S608 - constants
TABLE = Table("answers", "size > 0", "UPDATE answers SET value = NULL, size = 0 WHERE id = ?")


class SqliteAnswers:
    """`storage.answers.AnswerStore`. `shelves` bound the bytes of its table."""

    def __init__(self, writer: Writer, shelves: Shelves) -> None:
        self._writer = writer
        self._shelves = shelves

    async def claim_answer(self, account: str, name: str, claim: Claim, now: int) -> Claim | None:
        return await self._writer.run(lambda db: _claim(db, account, name, claim, now), brief=True)

    async def find_answer(self, account: str, name: str, now: int) -> Claim | None:
        return await self._writer.run(lambda db: _find(db, account, name, now), brief=True)

    async def renew_claim(self, account: str, name: str, owner: str, until: int) -> None:
        query = f"UPDATE answers SET until = max(until, ?) WHERE {OWN} AND NOT done"  # noqa: S608 - constants
        await self._writer.run(lambda db: db.execute(query, (until, account, name, owner)))

    async def keep_answer(
        self, account: str, name: str, owner: str, answer: bytes | None, until: int
    ) -> bool:
        def keep(db: sqlite3.Connection) -> bool:
            row = (answer, len(answer or b""), until, account, name, owner)
            if db.execute(KEEP, row).rowcount:
                return True
            return bool(db.execute(f"SELECT 1 FROM answers WHERE {OWN}", (account, name, owner)).fetchone())  # noqa: S608 - constants

        kept = await self._writer.run(keep, brief=True)
        if kept and answer:
            await self._shelves.grown(account, len(answer))
        return kept

    async def drop_claim(self, account: str, name: str, owner: str) -> None:
        query = f"DELETE FROM answers WHERE {OWN} AND NOT done"  # noqa: S608 - constants
        await self._writer.run(lambda db: db.execute(query, (account, name, owner)), brief=True)


def _claim(db: sqlite3.Connection, account: str, name: str, claim: Claim, now: int) -> Claim | None:
    held = _find(db, account, name, now)
    if held is not None and (held.done or held.owner != claim.owner):
        return held
    row = (account, name, claim.fingerprint, claim.owner, claim.until)
    db.execute(
        "INSERT OR REPLACE INTO answers (account, name, fingerprint, owner, until) VALUES (?,?,?,?,?)", row
    )
    return None


def _find(db: sqlite3.Connection, account: str, name: str, now: int) -> Claim | None:
    row = db.execute(FIND, (account, name, now)).fetchone()
    return Claim(row[0], row[1], row[2], bool(row[3]), row[4]) if row else None
