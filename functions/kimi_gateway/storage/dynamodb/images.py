"""Writes of accounts' hot items, and the last image of each account that was met."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.accounts.values import Balance, Key
from kimi_gateway.storage.dynamodb import steps
from kimi_gateway.storage.dynamodb.item import HOT, Image, Lease, partition
from kimi_gateway.storage.dynamodb.notes import DynamoNotes
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

PAUSE, LONGEST = 0.005, 0.25  # seconds between two tries, doubled each time
MET = 1_000  # accounts whose images are kept


class DynamoImages(DynamoNotes):
    """Images never decide; they show what can be tidied up."""

    def __init__(
        self, table: Table, sleep: Callable[[float], Awaitable[None]], jitter: Callable[[], float]
    ) -> None:
        super().__init__(table)
        self._sleep = sleep
        self._jitter = jitter
        self._images = BoundedDict[Image](MET)

    async def _rewrite(
        self, account: str, image: Image, balance: Balance, ended: Mapping[str, Lease]
    ) -> bool:
        """False if the image is outdated."""
        try:
            await self._write(account, steps.rewritten(image, balance, ended))
        except Conflict as conflict:
            self._seen(account, conflict)
            return False
        return True

    async def _write(self, account: str, change: Change) -> Image:
        image = self._images[account] = Image(await self._table.update(partition(account), HOT, change))
        return image

    def _met(self, key: Key, image: Image) -> Key:
        self._images[key.account] = image
        return key

    def _seen(self, account: str, conflict: Conflict) -> Image | None:
        return self._read(account, None if conflict.item is None else Image(conflict.item))

    def _read(self, account: str, image: Image | None) -> Image | None:
        if image is None:
            self._images.pop(account, None)
        else:
            self._images[account] = image
        return image

    async def _pause(self, number: int) -> None:
        if number:
            await self._sleep(self._jitter() * min(LONGEST, PAUSE * 2**number))
