"""A bounded queue between the tasks that read upstreams and the one that answers a client. The reader waits
for an item, for silence and for an interruption at once, without an extra task for each wait. Its `direct`
function may take an item while the reader waits, so the reader need not continue for it.

Below it is a wait whose end continues the waiting task at once. Setting the result of an asyncio future only
schedules the task that waits for it. A piece of an answer goes through two tasks, and two more turns of the
loop cost more than all that the tasks do with a short piece. For the same reason `begin` makes a task that
begins at once.
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio.tasks import _enter_task, _leave_task  # for loops and tasks of one's own, by asyncio's manual
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from kimi_gateway.net.watch import Alarms, alarms

T = TypeVar("T")
MOST = 8  # tasks that are continued in one callback of the loop; bounded, in case they wake one another
_continued: dict[asyncio.AbstractEventLoop, list[Wakeup]] = {}  # by loops that do this at present


class Mailbox(Generic[T]):
    """Many producers, one consumer. A full mailbox blocks its producers, which slows the upstream down."""

    def __init__(self, limit: int = 4) -> None:
        self._items: list[T] = []  # few; an empty deque takes 0.6 kB
        self._limit = limit
        self._reader: Wakeup | None = None
        self.direct: Callable[[T], bool] | None = None  # False if it does not take this item
        self._writers: list[asyncio.Future[None]] = []
        self._interruption: Exception | None = None
        self._timeout = self._silent_at = self._last_at = self._due = 0.0
        self._alarm: list[Any] | None = None
        self._alarms: Alarms | None = None

    def offer(self, item: T) -> bool:
        """Put an item if that needs no wait. False if the mailbox is full. What `direct` takes ends the
        silence for the reader, as an item does, and nothing else."""
        reader, direct, waiting = self._reader, self.direct, len(self._items)
        if direct is not None and reader is not None and not waiting and reader.awaited and direct(item):
            self._silent_at = min(reader.now() + self._timeout, self._last_at)
            return True
        if waiting >= self._limit:
            return False
        self._items.append(item)
        if reader is not None:
            reader.give()
        return True

    async def put(self, item: T) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._reader.give()
        while len(self._items) > self._limit:
            room = asyncio.get_running_loop().create_future()
            self._writers.append(room)
            await room

    def interrupt(self, error: Exception) -> None:
        """Make the consumer's next `get` raise `error`, ahead of waiting items."""
        self._interruption = error
        if self._reader is not None:
            self._reader.give_soon()

    async def get(self, timeout: float, longest: float = math.inf) -> T | None:
        """The next item; None after `timeout` seconds without one, and after `longest` seconds in which
        `direct` took all. Raises the error of `interrupt`."""
        if not self._items and self._interruption is None:
            loop = asyncio.get_running_loop()
            if self._reader is None:
                self._reader = Wakeup(loop)
            now, self._timeout = loop.time(), timeout
            self._last_at = now + longest
            self._silent_at = min(now + timeout, self._last_at)
            if self._alarm is None or self._silent_at < self._due:
                self._set_alarm(loop)
            await self._reader
        if self._interruption is not None:
            raise self._interruption
        if not self._items:
            return None
        item = self._items.pop(0)
        if self._writers and not (writer := self._writers.pop(0)).done():
            writer.set_result(None)
        return item

    def clear(self) -> None:
        """Forget the waiting items; nobody puts any at present."""
        self._items.clear()

    def close(self) -> None:
        """The mailbox is no longer used."""
        self.direct = None  # it may refer back to the mailbox
        self._stop_alarm()

    def _stop_alarm(self) -> None:
        if self._alarm is not None and self._alarms is not None:
            self._alarms.cancel(self._alarm)
            self._alarm = None

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set one alarm for many waits: when it rings, it checks the latest deadline and sets itself
        again."""
        self._stop_alarm()
        self._due = self._silent_at
        self._alarms = alarms(loop)
        self._alarm = self._alarms.set(self._due, partial(self._look, loop))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._alarm = None
        if self._reader is None or not self._reader.awaited:
            return
        if loop.time() >= self._silent_at:
            self._reader.give_soon()
        else:
            self._set_alarm(loop)


class Wakeup:
    """A future that one task at a time awaits, again and again.

    `give` and `give_soon` end the wait; without a waiting task they do nothing, because a reader looks
    first for what there is. `give_soon` lets the loop continue the task in its next turn, as a future does.
    `give`, from a callback of the loop, continues the task at once, so its caller must be ready for all that
    the task may do. From a task that was itself continued so, it continues the waiting task when that one
    waits again; from any other task it is `give_soon`.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_ended",
        "_given",
        "_loop",
        "now",
        "taken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self.now = loop, loop.time
        self._asyncio_future_blocking = False
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._given = self._ended = False
        self.taken = False  # a task waits, or was woken and has not continued yet

    @property
    def awaited(self) -> bool:
        """Whether a task waits that was not woken yet."""
        return self._callback is not None and not self._ended

    def give(self) -> None:
        if self._callback is None or self._ended:
            return
        self._given = self._ended = True
        continued = _continued.get(self._loop)
        if continued is None:
            if asyncio.current_task(self._loop) is None:
                self._continue_all()
            else:
                self._schedule()
        elif len(continued) < MOST:
            continued.append(self)
        else:
            self._schedule()

    def give_soon(self) -> None:
        if self.awaited:
            self._given = self._ended = True
            self._schedule()

    def __await__(self) -> Generator[Any, None, None]:
        if self.taken:
            raise RuntimeError("two tasks wait for one wake-up")
        self._given = self._ended = False
        self._asyncio_future_blocking = self.taken = True
        try:
            yield self
        finally:
            self.taken = False
        if not self._given:
            raise RuntimeError("a task was continued before its wake-up")

    def _continue_all(self) -> None:
        waiting = _continued[self._loop] = [self]
        at = 0
        try:
            while at < len(waiting):  # a continued task may add others
                wakeup, at = waiting[at], at + 1
                callback, context = wakeup._callback, wakeup._context
                if callback is not None and context is not None:  # it was not cancelled meanwhile
                    wakeup._callback = wakeup._context = None
                    context.run(callback, wakeup)
        finally:
            del _continued[self._loop]
            for wakeup in waiting[at:]:
                if wakeup._callback is not None:
                    wakeup._schedule()

    def _schedule(self) -> None:
        callback, context = self._callback, self._context
        self._callback = self._context = None
        assert callback is not None  # noqa: S101  it was awaited
        self._loop.call_soon(callback, self, context=context)

    # What a task asks of a future. Without `get_loop` it reads `_loop`, which costs no call.

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback, self._context = callback, context

    def cancel(self, msg: object = None) -> bool:
        """False if the task is already being continued; it then sees its cancellation when it waits again."""
        if self._callback is None:
            return False
        self._given, self._ended = False, True
        self._schedule()
        return True

    def result(self) -> None:
        if not self._given:
            raise asyncio.CancelledError


def begin(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has already run up to its first wait; elsewhere a task begins in the loop's next turn. Its
    caller, a callback or another task of the loop, must be ready for all that it may have done."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    asked: list[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = []

    def keep(callback: Callable[..., object], *given: Any, context: Context | None = None) -> None:
        asked.append((callback, given, context))

    try:
        loop.call_soon = keep  # type: ignore[method-assign, assignment]
    except AttributeError:  # a loop that is not of Python
        return loop.create_task(work)
    try:
        task = asyncio.Task(work, loop=loop)
    finally:
        del loop.call_soon  # the loop's own shows again
    outer = asyncio.current_task(loop)
    if outer is not None:
        _leave_task(loop, outer)
    try:
        for callback, given, context in asked:
            if context is not None and getattr(callback, "__self__", None) is task:
                context.run(callback)
            else:  # a finalizer's, if garbage was collected meanwhile
                loop.call_soon(callback, *given, context=context)
    finally:
        if outer is not None:
            _enter_task(loop, outer)
    return task
