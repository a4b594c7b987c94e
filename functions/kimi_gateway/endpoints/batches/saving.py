"""Notes how far a batch's output was read, so that the next process goes on there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kimi_gateway.accounts.batches import BatchRecord, BatchStore
from kimi_gateway.endpoints.batches.tally import Tally

SAVED_EVERY = 3.0  # seconds
TRIES = 5  # of one note; the next one has the same


class ReadElsewhere(Exception):
    """Another process has read further, or has booked the batch."""


class Saving:
    """The notes of one reading. `tally` changes while it reads."""

    def __init__(
        self, store: BatchStore, record: BatchRecord, tally: Tally, clock: Callable[[], float]
    ) -> None:
        self.record = record
        self._store = store
        self._tally = tally
        self._clock = clock
        self._saved = clock()

    async def save(self) -> None:
        """Raises ReadElsewhere, and StoreDown."""
        if self._clock() - self._saved < SAVED_EVERY:
            return
        text = self._tally.text
        for _ in range(TRIES):
            if await self._store.change_batch(self.record, new := replace(self.record, read=text)):
                self.record, self._saved = new, self._clock()
                return
            now = int(self._clock())
            found = await self._store.batch(self.record.account, self.record.id, now)
            if found is None or found.gone or found.booked or Tally.of(found.read).at > self._tally.at:
                raise ReadElsewhere
            self.record = found
