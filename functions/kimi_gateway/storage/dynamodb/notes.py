"""Outages of upstream tokens, kept answers, files and batches in DynamoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kimi_gateway.storage.cache import fitting
from kimi_gateway.storage.dynamodb import cache, outages
from kimi_gateway.storage.dynamodb.batches import DynamoBatches
from kimi_gateway.storage.dynamodb.files import DynamoFiles


class DynamoNotes(DynamoFiles, DynamoBatches):
    """The record of outages (providers.tokens.outages.OutageLog), the cache (storage.cache.Cache) and the
    records of files and batches (accounts.files, accounts.batches)."""

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        await outages.publish(self._table, token, model, cause, until)

    async def retract(self, token: str, model: str) -> None:
        await outages.retract(self._table, token, model)

    async def published(self) -> list[tuple[str, str, str, int]]:
        return await outages.published(self._table)

    async def claim(self, token: str, now: int, until: int) -> bool:
        return await outages.claim(self._table, token, now, until)

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        await cache.keep(self._table, account, fitting(entries), until)

    async def forget(self, account: str, names: Sequence[str]) -> None:
        await cache.forget(self._table, account, names)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        return await cache.recall(self._table, account, names, now)
