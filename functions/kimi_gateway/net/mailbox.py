"""A bounded queue between the tasks that read upstreams and the one that answers a client. The reader waits
for an item, for silence and for an interruption at once, without an extra task for each wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many producers, one consumer. A full mailbox blocks its producers, which slows the upstream down."""

    def __init__(self, limit: int = 32) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._interruption: Exception | None = None
        self._silent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, item: T) -> None:
        self._items.append(item)
        _wake(self._reader)
        while len(self._items) > self._limit:
            room = asyncio.get_running_loop().create_future()
            self._writers.append(room)
            await room

    def interrupt(self, error: Exception) -> None:
        """Make the consumer's next `get` raise `error`, ahead of waiting items."""
        self._interruption = error
        _wake(self._reader)

    async def get(self, timeout: float) -> T | None:
        """The next item; None after `timeout` seconds without one. Raises the error of `interrupt`."""
        if not self._items and self._interruption is None:
            loop = asyncio.get_running_loop()
            self._reader = loop.create_future()
            self._silent_at = loop.time() + timeout
            if self._timer is None or self._silent_at < self._timer.when():
                self._set_timer(loop)
            try:
                await self._reader
            finally:
                self._reader = None
        if self._interruption is not None:
            raise self._interruption
        if not self._items:
            return None
        item = self._items.popleft()
        if self._writers:
            _wake(self._writers.popleft())
        return item

    def clear(self) -> None:
        """Forget the waiting items; nobody puts any at present."""
        self._items.clear()

    def close(self) -> None:
        """Cancel the timer; the mailbox is no longer used."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set one timer for many waits: when it fires, it checks the latest deadline and sets itself
        again."""
        self.close()
        self._timer = loop.call_at(self._silent_at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._reader is None:
            return
        if loop.time() >= self._silent_at:
            _wake(self._reader)
        else:
            self._set_timer(loop)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
