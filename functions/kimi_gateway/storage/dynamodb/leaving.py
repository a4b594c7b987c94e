"""The rest of a deleted account on the table: its kept texts and answers end at once, and its files and
batches are due, so that a sweep deletes them at the provider. Every step may be repeated.
"""

from __future__ import annotations

from kimi_gateway.accounts.files import Kind, Room
from kimi_gateway.storage.dynamodb import answers, cache, files
from kimi_gateway.storage.dynamodb.batches import DynamoBatches
from kimi_gateway.storage.dynamodb.table import Table

_KINDS: tuple[Kind, ...] = ("kept", "shared")  # passing files end with their turns
_ROOM = Room()  # nothing grows


async def end(table: Table, account: str) -> None:
    for kind in _KINDS:
        for record in await files.live(table, account, kind, 0):
            await files.change(table, record, record.abandoned(), _ROOM)
    batches = DynamoBatches()
    batches._table = table
    for batch in await batches.batches(account, 0):
        if batch.booked:
            await batches.remove_batch(batch)
        else:
            await batches.change_batch(batch, batch.abandoned())
    await cache.end(table, account)
    await answers.end(table, account)
