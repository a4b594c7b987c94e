"""Time-outs that cost little: one that moves with every event of a stream, one for work that seldom waits,
and the alarms below them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from heapq import heapify, heappop, heappush
from types import TracebackType, coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
FOREVER = math.inf
STEP = 5.0  # longest interval of the timer, in seconds, so that an earlier deadline rarely needs a new timer
KEPT = 64  # cancelled alarms that are kept at least, before half of all may be


class Alarms:
    """Deadlines on one loop, nearly all of which are cancelled before they come. They share a timer, because
    each timer of the loop costs a dozen calls. An alarm is its time, its number, and what it calls until it
    was cancelled or has rung."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[list[Any]] = []
        self._set = self._cancelled = 0  # alarms in all; cancelled ones in the heap
        self._due = math.inf  # of the timer
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # not that of the request which comes first

    @property
    def size(self) -> int:
        return len(self._heap)

    def set(self, when: float, ring: Callable[[], object]) -> list[Any]:
        """`ring` is called at `when`, of the loop's clock."""
        self._set += 1
        alarm = [when, self._set, ring]
        heappush(self._heap, alarm)
        if when < self._due:
            self._call_at(when)
        return alarm

    def cancel(self, alarm: list[Any]) -> None:
        """It may have rung."""
        if alarm[2] is None:
            return
        alarm[2] = None
        self._cancelled += 1
        if self._cancelled > KEPT and self._cancelled * 2 > len(self._heap):
            self._heap = [each for each in self._heap if each[2] is not None]
            heapify(self._heap)
            self._cancelled = 0

    def _call_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._ring, context=self._context)

    def _ring(self) -> None:
        self._timer, self._due, now = None, math.inf, self._loop.time()
        try:
            while self._heap and (self._heap[0][2] is None or self._heap[0][0] <= now):
                alarm = heappop(self._heap)
                ring, alarm[2] = alarm[2], None
                if ring is None:
                    self._cancelled -= 1
                else:
                    ring()
        finally:
            if self._heap and self._heap[0][0] < self._due:
                self._call_at(self._heap[0][0])


_alarms: dict[asyncio.AbstractEventLoop, Alarms] = {}


def alarms(loop: asyncio.AbstractEventLoop) -> Alarms:
    found = _alarms.get(loop)
    if found is None:
        for each in list(_alarms):
            if each.is_closed():
                _alarms.pop(each, None)
        found = _alarms[loop] = Alarms(loop)
    return found


class Watch:
    """Like asyncio.timeout: cancels the task inside and raises TimeoutError. But `allow` only stores a later
    deadline; an alarm checks it when it rings, and goes on if time is left."""

    __slots__ = ("_alarm", "_alarms", "_cancelling", "_due", "_end", "_expired", "_task", "_time")
    _alarm: list[Any]

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._alarms = alarms(loop)
        self._time = loop.time
        self._end = self._time() + seconds
        self._expired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._set(self._time())
        return self

    def allow(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now; FOREVER for none."""
        end = self._end = self._time() + seconds
        if end < self._due:
            self._alarms.cancel(self._alarm)
            self._call_at(end)

    def _set(self, now: float) -> None:
        end = now + STEP
        self._call_at(end if end < self._end else self._end)

    def _call_at(self, when: float) -> None:
        self._due = when  # kept here, because asking the alarm for it costs a call for each event
        self._alarm = self._alarms.set(when, self._look)

    def _look(self) -> None:
        now = self._time()
        if now >= self._end:
            self._expired = True
            self._task.cancel()
        else:
            self._set(now)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarms.cancel(self._alarm)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc


@coroutine
def within(seconds: float, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """The result of `work`, as inside asyncio.timeout: raises TimeoutError. Work that never waits needs no
    timer."""
    try:
        waits = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return (yield from _bounded(seconds, _waiting(work, waits)).__await__())


async def _bounded(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(seconds):
        return await work


@coroutine
def _waiting(work: Coroutine[Any, Any, T], waits: Any) -> Generator[Any, Any, T]:
    """Go on with work that waits for something."""
    while True:
        thrown: BaseException | None = None
        try:
            given = yield waits
        except BaseException as exc:
            given, thrown = None, exc
        try:
            waits = work.send(given) if thrown is None else work.throw(thrown)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            del thrown  # its traceback has this frame
