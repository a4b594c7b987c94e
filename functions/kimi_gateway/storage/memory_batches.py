"""The executable specification of a store of batch records."""

from __future__ import annotations

from kimi_gateway.accounts.batches import BatchRecord, TooManyBatches, in_order


class MemoryBatches:
    def __init__(self) -> None:
        self._batches: dict[tuple[str, str], BatchRecord] = {}  # by account and id

    async def add_batch(self, record: BatchRecord, most: int) -> None:
        if (record.account, record.id) in self._batches:
            return
        mine = await self.batches(record.account, record.created)
        running = sum(not each.booked for each in mine)
        if running >= most:
            raise TooManyBatches(running)
        self._batches[record.account, record.id] = record

    def leave(self, account: str) -> None:
        """The account is deleted."""
        mine = {at: each for at, each in self._batches.items() if at[0] == account}
        for at, each in mine.items():
            if each.booked:
                del self._batches[at]
            else:
                self._batches[at] = each.abandoned()

    async def change_batch(self, old: BatchRecord, new: BatchRecord) -> bool:
        if self._batches.get((old.account, old.id)) != old:
            return False
        self._batches[new.account, new.id] = new
        return True

    async def remove_batch(self, record: BatchRecord) -> None:
        self._batches.pop((record.account, record.id), None)

    async def batch(self, account: str, id: str, now: int) -> BatchRecord | None:
        record = self._batches.get((account, id))
        return record if record and record.expires > now else None

    async def batches(self, account: str, now: int) -> list[BatchRecord]:
        return in_order(
            [each for each in self._batches.values() if each.account == account and each.expires > now]
        )

    async def due_batches(self, now: int, most: int) -> list[BatchRecord]:
        self._batches = {key: each for key, each in self._batches.items() if each.expires > now}
        due = [each for each in self._batches.values() if each.due <= now]
        return sorted(due, key=lambda each: (each.due, each.id))[:most]
