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
    """The notes of one reading. `tally` changes while it reads. A `patient` one goes on where another process
    has read further, and notes nothing until it is ahead: the other one may be frozen."""

    def __init__(
        self,
        store: BatchStore,
        record: BatchRecord,
        tally: Tally,
        clock: Callable[[], float],
        patient: bool = False,
    ) -> None:
        self.record = record
        self._noted = Tally.of(record.read).at
        self._patient = patient
        self._store = store
        self._tally = tally
        self._clock = clock
        self._saved = clock()

    async def save(self) -> None:
        """Raises ReadElsewhere, and StoreDown."""
        if self._tally.at <= self._noted or self._clock() - self._saved < SAVED_EVERY:
            return
        self._tally.moved = int(self._clock())
        text = self._tally.text
        for _ in range(TRIES):
            if await self._store.change_batch(self.record, new := replace(self.record, read=text)):
                self.record, self._noted, self._saved = new, self._tally.at, self._clock()
                return
            now = int(self._clock())
            found = await self._store.batch(self.record.account, self.record.id, now)
            if found is None or found.gone or found.booked:
                raise ReadElsewhere
            self.record = found
            if (further := Tally.of(found.read).at) > self._tally.at:
                if not self._patient:
                    raise ReadElsewhere
                self._noted = further
                return
