"""The store of one machine: one SQLite file, exact across all processes that share it.

Windows and leases are bounded: there is one counter each for the latest minute, hour and day of a key, and
leases end. Usage rows (one for each hour, key and model) are kept for a while.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kimi_gateway.accounts import keys, rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.batches import BatchRecord
from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.accounts.store import NOTHING, UNUSED, StoreDown
from kimi_gateway.accounts.values import (
    Account,
    Admission,
    Amount,
    Balance,
    Bound,
    Budget,
    Grant,
    Key,
    NewKey,
    Overview,
    Usage,
    UsageRow,
)
from kimi_gateway.storage import answers as answer_bounds
from kimi_gateway.storage import cache as entry_bounds
from kimi_gateway.storage.answers import AnswerStore
from kimi_gateway.storage.cache import fitting
from kimi_gateway.storage.sqlite import accounts as directory
from kimi_gateway.storage.sqlite import answers, cache, database, files, funds, outages, steps
from kimi_gateway.storage.sqlite import batches as batch_rows
from kimi_gateway.storage.sqlite import overview as views
from kimi_gateway.storage.sqlite import usage as rows
from kimi_gateway.storage.sqlite.log import Log
from kimi_gateway.storage.sqlite.loop_connection import LoopConnection
from kimi_gateway.storage.sqlite.shelves import Shelves
from kimi_gateway.storage.sqlite.writer import Writer

if TYPE_CHECKING:
    from kimi_gateway.storage.moving import Mover

T = TypeVar("T")
TOGETHER = 50  # accounts that are read in one transaction


class SqliteStore:
    """It also implements the record of outages (providers.tokens.outages.OutageLog), the cache
    (storage.cache.Cache) and the records of files and batches (accounts.files, accounts.batches).

    `lock_timeout`: seconds to wait for another process's transaction. `keep_usage`: seconds that usage rows
    are kept.
    """

    def __init__(
        self,
        path: Path,
        below: keys.Below = secrets.randbelow,
        lock_timeout: float = 5.0,
        keep_usage: int = usages.KEPT * usages.DAY,
    ) -> None:
        self._path = path
        self._lock_timeout = lock_timeout
        self._keep_usage = keep_usage
        self._below = below
        on_loop = LoopConnection(lambda: database.connect_beside(path), steps.REFUSALS)
        self._writer = Writer(
            lambda: database.connect(path, lock_timeout),
            steps.REFUSALS,
            on_loop,
            Log(path),
            lock_timeout,
        )
        shelves = partial(Shelves, self._writer, self._read)
        self._entries = shelves(cache.TABLE, entry_bounds.MOST_OF_ACCOUNT, entry_bounds.MOST)
        self._answers = shelves(answers.TABLE, answer_bounds.MOST_OF_ACCOUNT, answer_bounds.MOST)

    def answers(self) -> AnswerStore:
        return answers.SqliteAnswers(self._writer, self._answers)

    def moving(self) -> Mover:
        from kimi_gateway.storage.sqlite.moving import SqliteMover  # one command needs it

        return SqliteMover(self._writer)

    async def find_key(self, digest: str) -> Key | None:
        return await self._writer.run(lambda db: directory.find_key(db, digest), brief=True)

    async def admit(
        self, request: str, key: Key, cost: int, lease_until: int, now: int, bound: Bound | None = None
    ) -> Admission:
        return await self._writer.run(
            lambda db: steps.admit(db, request, key, cost, lease_until, now, bound), brief=True
        )

    async def hold(self, request: str, key: Key, lease_until: int, now: int, bound: Bound) -> Admission:
        return await self._writer.run(
            lambda db: steps.hold(db, request, key, lease_until, now, bound), brief=True
        )

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        return await self._writer.run(
            lambda db: steps.settle(db, admission, model, usage, now, billed), brief=True
        )

    async def release(
        self,
        admission: Admission,
        model: str,
        error: bool,
        now: int,
        billed: Amount | None = NOTHING,
        usage: Usage = UNUSED,
        cause: str = "",
    ) -> bool:
        return await self._writer.run(
            lambda db: steps.release(db, admission, model, error, now, billed, usage, cause), brief=True
        )

    async def renew(self, admissions: Sequence[Admission], lease_until: int) -> None:
        await self._writer.run(lambda db: steps.renew(db, admissions, lease_until))

    async def purge(self, now: int) -> int:
        def all(db: sqlite3.Connection) -> int:
            rows.purge(db, now - self._keep_usage)
            return steps.purge(db, now)

        ended = await self._writer.run(all)
        await self._entries.purge(now)
        await self._answers.purge(now)
        return ended

    async def create_account(
        self, name: str, credits: Grant | None, now: int, invited_by: str = ""
    ) -> Account:
        account = keys.account_id(self._below)
        return await self._writer.run(
            lambda db: directory.create_account(db, account, name, credits, now, invited_by)
        )

    async def open_account(self, credits: Grant, new: NewKey, now: int, invited_by: str = "") -> Account:
        id = keys.account_id(self._below)
        key = rules.made(replace(new, account=id), keys.key_id(self._below), now)
        return await self._writer.run(lambda db: directory.open_account(db, credits, key, now, invited_by))

    async def create_key(self, new: NewKey, now: int, most: int | None = None) -> Key:
        key = rules.made(new, keys.key_id(self._below), now)
        return await self._writer.run(lambda db: directory.create_key(db, key, most))

    async def update_key(self, key: str, change: Callable[[Key], Key], now: int) -> Key:
        return await self._writer.run(
            lambda db: directory.change_key(db, key, lambda old: rules.changed(old, change(old)))
        )

    async def rotate_key(self, key: str, digest: str, until: int, now: int) -> Key:
        return await self._writer.run(
            lambda db: directory.change_key(db, key, lambda old: rules.rotated(old, digest, until))
        )

    async def revoke_key(self, key: str, now: int) -> Key:
        return await self._writer.run(lambda db: directory.revoke_key(db, key))

    async def rename_account(self, account: str, name: str, now: int) -> Account:
        return await self._writer.run(lambda db: directory.rename_account(db, account, name, now))

    async def set_budgets(self, account: str, wanted: Sequence[Budget], now: int) -> Account:
        return await self._writer.run(lambda db: directory.set_budgets(db, account, wanted, now))

    async def delete_account(self, account: str) -> None:
        for shelves in (self._entries, self._answers):
            await shelves.leave(account)  # most of it, in pieces; the rest goes with the account
        await self._writer.run(lambda db: directory.delete_account(db, account))

    async def grant(self, account: str, grant: Grant, now: int) -> Account:
        return await self._writer.run(lambda db: directory.grant(db, account, grant, now))

    async def deduct(self, account: str, credits: int, now: int) -> Account:
        return await self._writer.run(lambda db: directory.deduct(db, account, credits, now))

    async def fund(self, account: str, name: str, change: Callable[[Balance], Balance], now: int) -> bool:
        return await self._writer.run(lambda db: funds.fund(db, account, name, change, now))

    async def funded(self, account: str, name: str) -> int | None:
        return await self._writer.run(lambda db: funds.funded(db, account, name))

    async def tally(self, name: str, most: int, until: int, now: int) -> bool:
        return await self._writer.run(lambda db: funds.tally(db, name, most, until, now))

    async def account(self, name: str, now: int) -> Account:
        return await self._writer.run(lambda db: directory.account(db, name, now))

    async def accounts(self, now: int) -> list[Account]:
        ids = await self._writer.run(directory.ids)
        shown: list[Account] = []
        for at in range(0, len(ids), TOGETHER):  # in pieces, between other transactions
            shown += await self._writer.run(partial(directory.some, ids=ids[at : at + TOGETHER], now=now))
        return shown

    async def usage(self, since: int, account: str | None = None) -> list[UsageRow]:
        return await self._read(lambda db: rows.rows(db, since, account))

    async def usage_sums(self, since: int, by: Sequence[str], account: str | None = None) -> list[UsageRow]:
        if account is not None:
            return await self._read(lambda db: rows.sums(db, since, by, account))
        parts = await self._read(lambda db: rows.halves(db, since))
        summed = [partial(rows.sums, since=first, by=by, account=None, before=end) for first, end in parts]
        found = await asyncio.gather(*map(self._read, summed))
        return found[0] if len(found) == 1 else usages.summed(chain(*found), by)

    async def overview(self, key: Key, since: int, now: int) -> Overview:
        found = await self._writer.run(lambda db: views.overview(db, key, now))
        usage = await self.usage_sums(since, ("hour",), key.account)
        return replace(found, usage=tuple(usage))

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a long reading job beside the writer, which goes on. Raises StoreDown."""
        await self._writer.run(lambda db: None)  # creates the file, or finds that it cannot be used

        def read() -> T:
            with closing(database.connect_beside(self._path, self._lock_timeout)) as db:
                return job(db)

        try:
            return await asyncio.to_thread(read)
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        await self._writer.run(lambda db: outages.publish(db, token, model, cause, until))

    async def retract(self, token: str, model: str) -> None:
        await self._writer.run(lambda db: outages.retract(db, token, model))

    async def published(self) -> list[tuple[str, str, str, int]]:
        return await self._writer.run(outages.published)

    async def claim(self, token: str, now: int, until: int) -> bool:
        return await self._writer.run(lambda db: outages.claim(db, token, now, until))

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        kept = fitting(entries)
        await self._writer.run(lambda db: cache.keep(db, account, kept, until), brief=True)
        await self._entries.grown(account, sum(map(entry_bounds.size, kept.values())))

    async def forget(self, account: str, names: Sequence[str]) -> None:
        await self._writer.run(lambda db: cache.forget(db, account, names))

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        return await self._writer.run(lambda db: cache.recall(db, account, names, now), brief=True)

    async def add_file(self, record: FileRecord, room: Room) -> None:
        await self._writer.run(lambda db: files.add(db, record, room), brief=True)

    async def change_file(self, old: FileRecord, new: FileRecord, room: Room) -> bool:
        return await self._writer.run(lambda db: files.change(db, old, new, room), brief=True)

    async def remove_file(self, record: FileRecord) -> bool:
        return await self._writer.run(lambda db: files.remove(db, record), brief=True)

    async def file(self, account: str, id: str, now: int) -> FileRecord | None:
        return await self._writer.run(lambda db: files.find(db, account, id, now), brief=True)

    async def files(self, account: str, now: int) -> list[FileRecord]:
        return await self._writer.run(lambda db: files.live(db, account, "kept", now))

    async def shared_files(self, account: str, now: int) -> list[FileRecord]:
        return await self._writer.run(lambda db: files.live(db, account, "shared", now), brief=True)

    async def due_files(self, now: int, most: int) -> list[FileRecord]:
        return await self._writer.run(lambda db: files.due(db, now, most))

    async def add_batch(self, record: BatchRecord, most: int) -> None:
        await self._writer.run(lambda db: batch_rows.add(db, record, most), brief=True)

    async def change_batch(self, old: BatchRecord, new: BatchRecord) -> bool:
        return await self._writer.run(lambda db: batch_rows.change(db, old, new), brief=True)

    async def remove_batch(self, record: BatchRecord) -> None:
        await self._writer.run(lambda db: batch_rows.remove(db, record), brief=True)

    async def batch(self, account: str, id: str, now: int) -> BatchRecord | None:
        return await self._writer.run(lambda db: batch_rows.find(db, account, id, now), brief=True)

    async def batches(self, account: str, now: int) -> list[BatchRecord]:
        return await self._writer.run(lambda db: batch_rows.all_of(db, account, now))

    async def due_batches(self, now: int, most: int) -> list[BatchRecord]:
        return await self._writer.run(lambda db: batch_rows.due(db, now, most))

    async def backup(self, target: Path, conversations: bool = True) -> None:
        """A consistent copy, mode 0600, complete or not at all; admissions continue meanwhile. Raises
        StoreDown."""
        try:
            await asyncio.to_thread(database.copy, self._path, target, conversations)
        except (sqlite3.Error, OSError) as error:
            raise StoreDown(str(error)) from error

    async def rest(self) -> None:
        """A load is over. Raises StoreDown."""
        from kimi_gateway.storage.sqlite import cursors

        await cursors.forget(self._writer)

    async def close(self) -> None:
        await self._writer.close()
