"""A time-out that moves with every event of a stream, so moving it must cost next to nothing."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

FOREVER = math.inf
STEP = 5.0  # seconds after which the timer looks at the latest, so that an earlier end seldom needs another


class Watch:
    """As asyncio.timeout: cancels the task inside it, and raises TimeoutError there. But `allow` only notes a
    later end; the one timer looks at the note when it goes off, and goes on if there is time left.
    """

    __slots__ = ("_cancelling", "_end", "_expired", "_loop", "_task", "_timer")
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._expired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._set(self._loop.time())
        return self

    def allow(self, seconds: float) -> None:
        """So many from now on; FOREVER for as long as it takes."""
        end = self._loop.time() + seconds
        if end < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(end, self._look)
        self._end = end

    def _set(self, now: float) -> None:
        self._timer = self._loop.call_at(min(self._end, now + STEP), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._end:
            self._expired = True
            self._task.cancel()
        else:
            self._set(now)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc
