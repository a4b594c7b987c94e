"""Records of batches on the table: one item each in the partition of its account.

The ids of those that run are a set in an item of its own, so their number is exact.
A batch that is not booked yet has a pointer in one partition for all accounts. The pointer is written before
the record and deleted after its change, so it may be outdated; `due` deletes such ones. DynamoDB deletes a
record after its time.
"""

from __future__ import annotations

from kimi_gateway.accounts.batches import BatchRecord, TooManyBatches, began, in_order, record_of, text_of
from kimi_gateway.accounts.store import StoreThrottled
from kimi_gateway.storage.dynamodb.item import Raw, number
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

DUE = "BATCHES"
RECORD = "r"
ONE = "-"  # the sort key of the item with the running ones
TRIES = 5
ON_ITS_WAY = 3_600  # seconds after which a place without a record is free
MOST_POINTERS = 1_000  # read by one sweep; the platform keeps 1,000 batch files (2026-09)


class DynamoBatches:
    """`accounts.batches.BatchStore` on a table."""

    _table: Table

    async def add_batch(self, record: BatchRecord, most: int) -> None:
        await self._take_place(record, most)
        await self._table.put(DUE, _pointer(record.account, record.id), {})
        try:
            await self._table.put_new(_partition(record.account), record.id, _item(record), RECORD)
        except Conflict:
            return  # it exists, and may have been changed since

    async def _take_place(self, record: BatchRecord, most: int) -> None:
        """Raises TooManyBatches. Places of batches that no longer run, whose process died, are freed."""
        taken = Change(
            adds=["ids :id"],
            conditions=["(attribute_not_exists(ids) OR size(ids) < :most OR contains(ids, :one))"],
            values={":id": {"SS": [record.id]}, ":one": {"S": record.id}, ":most": number(most)},
        )
        for _ in range(TRIES):
            try:
                await self._table.update(_running(record.account), ONE, taken)
                return
            except Conflict as conflict:
                ids = conflict.item["ids"]["SS"] if conflict.item else []
            ended = await self._ended(record, ids)
            if not ended:
                raise TooManyBatches(len(ids))
            await self._free(record.account, ended)
        raise StoreThrottled("others changed the running batches each time they were read")

    async def _ended(self, record: BatchRecord, ids: list[str]) -> list[str]:
        """The `ids` that no longer run. One without a record may be on its way for some time."""
        known = {each.id: each for each in await self.batches(record.account, record.created)}
        return [
            id for id in ids if (known[id].booked if id in known else began(id) < record.created - ON_ITS_WAY)
        ]

    async def _free(self, account: str, ids: list[str]) -> None:
        freed = Change(deletes=["ids :ids"], values={":ids": {"SS": ids}})
        await self._table.update(_running(account), ONE, freed)

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
            await self._free(new.account, [new.id])
            await self._table.delete(DUE, _pointer(new.account, new.id))
        return True

    async def remove_batch(self, record: BatchRecord) -> None:
        await self._table.delete(_partition(record.account), record.id)
        await self._free(record.account, [record.id])
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


def _running(account: str) -> str:
    return f"B#{account}#"


def _pointer(account: str, id: str) -> str:
    return f"{account} {id}"
