"""A time-out that moves with every event of a stream, so moving it must cost almost nothing."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

FOREVER = math.inf
STEP = 5.0  # longest interval of the timer, in seconds, so that an earlier deadline rarely needs a new timer


class Watch:
    """Like asyncio.timeout: cancels the task inside and raises TimeoutError. But `allow` only stores a later
    deadline; one timer checks it when it fires, and goes on if time is left."""

    __slots__ = ("_cancelling", "_due", "_end", "_expired", "_loop", "_task", "_time", "_timer")
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._end = self._time() + seconds
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
        """Set the deadline to `seconds` from now; FOREVER for none."""
        end = self._end = self._time() + seconds
        if end < self._due:
            self._timer.cancel()
            self._call_at(end)

    def _set(self, now: float) -> None:
        self._call_at(min(self._end, now + STEP))

    def _call_at(self, when: float) -> None:
        self._due = when  # kept here, because asking the timer for it costs a call for each event
        self._timer = self._loop.call_at(when, self._look)

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
