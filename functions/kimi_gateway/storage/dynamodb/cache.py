"""The cache on the table: one item for each entry, which DynamoDB deletes after its time.

A write costs a unit for each KiB. A read costs one for each 4 KiB, and only if this process has not cached
the entry.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from kimi_gateway.storage.dynamodb.item import number
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Table


def _partition(account: str) -> str:
    return f"R#{account}"


async def keep(table: Table, account: str, entries: Mapping[str, bytes], until: int) -> None:
    await asyncio.gather(
        *(
            table.put(_partition(account), name, {"v": {"B": b64encode(value).decode()}, TTL: number(until)})
            for name, value in entries.items()
        )
    )


async def forget(table: Table, account: str, names: Sequence[str]) -> None:
    await table.delete_many(_partition(account), names)


async def end(table: Table, account: str) -> None:
    """The account is deleted. What a request that still runs keeps ends with its time."""
    await table.delete_all(_partition(account))


async def recall(table: Table, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
    """The entries by name. Expired items are filtered here, because DynamoDB may take days to delete them."""
    items = await table.get_many(_partition(account), names)
    return {item["sk"]["S"]: b64decode(item["v"]["B"]) for item in items if int(item[TTL]["N"]) > now}
