"""Known outages of tokens in this process, shared with other processes through a record.

The record may be slow or down: a request waits little for it, rarely, and never fails because of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace

from kimi_gateway.observe import emit
from kimi_gateway.providers.tokens.outages import PROBE_EVERY, Outage, OutageLog

READ_EVERY = 30.0  # seconds between two reads of the record
WAITED = 1.0  # seconds that requests wait for a read, which continues in the background
Key = tuple[str, str]  # token and model


class TokenHealth:
    def __init__(self, record: OutageLog, clock: Callable[[], float]) -> None:
        self._record = record
        self._clock = clock
        self._outages: dict[Key, Outage] = {}
        self._changed: set[Key] = set()  # in this process, since the last read of the record began
        self._unsaid: set[Key] = set()  # not written because the record was down
        self._telling: dict[asyncio.Task[None], Key] = {}
        self._in_turn = asyncio.Lock()  # otherwise an older state could be written last
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self._awaited_until = 0.0  # by the loop's clock

    def known(self, token: str, model: str) -> list[Outage]:
        """Outages of the token: those for all models, then those for this one."""
        if not self._outages:
            return []
        return [
            self._outages[token, about]
            for about in dict.fromkeys(("", model))
            if (token, about) in self._outages
        ]

    def of(self, token: str) -> list[Outage]:
        """All known outages of the token, also those for one model."""
        return [outage for (of, _), outage in sorted(self._outages.items()) if of == token]

    def put(self, outage: Outage) -> bool:
        """Store an outage. Whether it is new."""
        key = outage.token, outage.model
        if self._outages.get(key) == outage:
            return False
        self._outages[key] = outage
        self._tell(key)
        return True

    def forget(self, outage: Outage) -> bool:
        """Remove an outage, unless a newer one has replaced it. Whether it was removed."""
        key = outage.token, outage.model
        if self._outages.get(key) != outage:
            return False
        del self._outages[key]
        self._tell(key)
        return True

    async def refresh(self) -> None:
        """Read outages of other processes, and those from before a restart."""
        now, loop = self._clock(), asyncio.get_running_loop()
        if self._reading is None and abs(now - self._read_at) >= READ_EVERY:
            self._read_at, self._awaited_until = now, loop.time() + WAITED
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None and (left := self._awaited_until - loop.time()) > 0:
            await asyncio.wait({self._reading}, timeout=left)

    async def claim(self, outage: Outage) -> bool:
        """Whether this process may probe a token that is due. Whatever the answer, it does not ask again for
        a minute."""
        key, now = (outage.token, outage.model), int(self._clock())
        self._outages[key] = replace(outage, until=now + PROBE_EVERY)
        self._changed.add(key)
        try:
            return await self._record.claim(outage.token, now, now + PROBE_EVERY)
        except Exception as exc:
            self._down(exc)
            self._unsaid.add(key)
            return True

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """Tasks that write or read the record."""
        return set(self._telling) | ({self._reading} if self._reading else set())

    async def close(self) -> None:
        """Wait for pending writes."""
        while tasks := self.busy:
            await asyncio.wait(tasks)

    async def _read(self) -> None:
        try:
            self._changed = self._unsaid | set(self._telling.values())
            read = {(token, model): Outage(token, model, cause, until)
                    for token, model, cause, until in await self._record.published()}  # fmt: skip
        except Exception as exc:
            self._down(exc)
        else:
            for key in self._changed:  # knowledge of this process is newer
                read.pop(key, None)
                if key in self._outages:
                    read[key] = self._outages[key]
            self._outages = read
            for key in list(self._unsaid):
                self._tell(key)
        finally:
            self._reading = None

    def _tell(self, key: Key) -> None:
        """Write the outage behind the request, which must not wait for it or fail because of it."""
        self._changed.add(key)
        self._unsaid.discard(key)
        task = asyncio.create_task(self._told(key))
        self._telling[task] = key
        task.add_done_callback(self._telling.pop)

    async def _told(self, key: Key) -> None:
        async with self._in_turn:
            outage = self._outages.get(key)
            try:
                if outage is None:
                    await self._record.retract(*key)
                else:
                    await self._record.publish(outage.token, outage.model, outage.cause, outage.until)
            except Exception as exc:
                self._down(exc)
                self._unsaid.add(key)

    def _down(self, error: Exception) -> None:
        emit("record_down", logging.WARNING, detail=str(error))
