"""Runs work on large bodies outside of the event loop.

Reading, checking and rewriting a request takes time that grows with its body. A large one is processed in a
thread, so that other requests can run meanwhile. The loop then waits for the interpreter's switch interval
and for single calls into C, but not for all of the work. For small bodies the hand-over would cost more than
it saves.

There is one thread: more would compete with the loop for the interpreter, and finish nothing earlier. The
accounts take turns at it, a step of a request at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from kimi_gateway.observe import current_account
from kimi_gateway.providers.tokens.wait_queue import FairQueue

T = TypeVar("T")
LARGE = 64 * 1024  # bytes of a body
THREADS = 1
SWITCH = 0.0002  # seconds after which a thread gives way to the loop


class Turns:
    """The steps that wait for the thread. One of each account is taken in turn."""

    def __init__(self) -> None:
        self._waiting = FairQueue[tuple[Future[Any], Callable[[], Any]]]()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, "large-body")

    def add(self, account: str, work: Callable[[], T]) -> Future[T]:
        """A step whose future is cancelled before its turn does not run."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.add(account, (future, work))
        self._threads.submit(self._next)
        return future

    def _next(self) -> None:
        with self._lock:
            future, work = self._waiting.take()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)
            del future, work  # the error refers to this frame


@cache
def _turns() -> Turns:
    sys.setswitchinterval(SWITCH)
    return Turns()


async def apart(size: int, work: Callable[[], T]) -> T:
    """Run `work` and return its result. `size` is the size of the request's body in bytes. If the caller is
    cancelled while the work runs, it still runs to its end, so it must have no effects."""
    if size < LARGE:
        return work()
    in_context = contextvars.copy_context().run  # so that its log lines name the request
    return await asyncio.wrap_future(_turns().add(current_account.get(), partial(in_context, work)))
