"""Usage and overviews of the store on DynamoDB."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.values import Key, Overview, UsageRow
from kimi_gateway.storage.dynamodb import accounts as directory
from kimi_gateway.storage.dynamodb import history
from kimi_gateway.storage.dynamodb.images import DynamoImages


class DynamoUsage(DynamoImages):
    async def usage(self, since: int, account: str | None = None) -> list[UsageRow]:
        first = usages.hour_of(since)
        ids = await directory.every(self._table) if account is None else [account]
        rows = chain(*await directory.each(ids, lambda id: history.of_account(self._table, id, first)))
        return sorted(rows, key=lambda row: (row.hour, row.account, row.key, row.model))

    async def usage_sums(self, since: int, by: Sequence[str], account: str | None = None) -> list[UsageRow]:
        return usages.summed(await self.usage(since, account), by)

    async def overview(self, key: Key, since: int, now: int) -> Overview:
        return await history.overview(self._table, key, since, now)
