"""Records of batches on the table: one item each in the partition of its account.

A batch that is not booked yet has a pointer in one partition for all accounts. The pointer is written before
the record and deleted after its change, so it may be outdated; `due` deletes such ones. DynamoDB deletes a
record after its time.
"""

from __future__ import annotations

from kimi_gateway.accounts.batches import BatchRecord, in_order, record_of, text_of
from kimi_gateway.storage.dynamodb.item import Raw, number
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

DUE = "BATCHES"
RECORD = "r"
MOST_POINTERS = 1_000  # read by one sweep; the platform keeps 1,000 batch files (2026-09)


class DynamoBatches:
    """`accounts.batches.BatchStore` on a table."""

    _table: Table

    async def add_batch(self, record: BatchRecord) -> None:
        await self._table.put(DUE, _pointer(record.account, record.id), {})
        try:
            await self._table.put_new(_partition(record.account), record.id, _item(record), RECORD)
        except Conflict:
            return  # it exists, and may have been changed since

    async def change_batch(self, old: BatchRecord, new: BatchRecord) -> bool:
        written = Change(
            sets=["#r = :new", "#t = :ttl"],
            conditions=["#r = :old"],
            names={"#r": RECORD, "#t": TTL},
            values={
                ":new": {"S": text_of(new)},
                ":old": {"S": text_of(old)},
                ":ttl": number(new.expires),
            },
        )
        try:
            await self._table.update(_partition(old.account), old.id, written)
        except Conflict as conflict:
            if conflict.item is None or conflict.item[RECORD]["S"] != text_of(new):
                return False  # else it is our own earlier write, whose answer was lost
        if new.booked:
            await self._table.delete(DUE, _pointer(new.account, new.id))
        return True

    async def remove_batch(self, record: BatchRecord) -> None:
        await self._table.delete(_partition(record.account), record.id)
        await self._table.delete(DUE, _pointer(record.account, record.id))

    async def batch(self, account: str, id: str, now: int) -> BatchRecord | None:
        record = _record(await self._table.get(_partition(account), id))
        return record if record and record.expires > now else None

    async def batches(self, account: str, now: int) -> list[BatchRecord]:
        found = map(_record, await self._table.query(_partition(account)))
        return in_order([each for each in found if each is not None and each.expires > now])

    async def due_batches(self, now: int, most: int) -> list[BatchRecord]:
        found: list[BatchRecord] = []
        for item in await self._table.query(DUE, most=MOST_POINTERS):
            account, _, id = item["sk"]["S"].partition(" ")
            record = _record(await self._table.get(_partition(account), id))
            if record is None or record.booked:
                await self._table.delete(DUE, item["sk"]["S"])
            elif record.due <= now and len(found) < most:
                found.append(record)
        return sorted(found, key=lambda each: (each.due, each.id))


def _item(record: BatchRecord) -> Raw:
    return {RECORD: {"S": text_of(record)}, TTL: number(record.expires)}


def _record(item: Raw | None) -> BatchRecord | None:
    return None if item is None else record_of(item[RECORD]["S"])


def _partition(account: str) -> str:
    return f"B#{account}"


def _pointer(account: str, id: str) -> str:
    return f"{account} {id}"
