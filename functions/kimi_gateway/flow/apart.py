"""Runs work on large bodies outside of the event loop.

Reading, checking and rewriting a request takes time that grows with its body. A large one is processed in a
thread, so that other requests can run meanwhile. The loop then waits for the interpreter's switch interval
and for single calls into C, but not for all of the work. For small bodies the hand-over would cost more than
it saves.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
LARGE = 64 * 1024  # bytes of a body
THREADS = 2  # more would only compete for the interpreter
SWITCH = 0.001  # seconds after which a thread gives way to the loop


@cache
def _threads() -> ThreadPoolExecutor:
    sys.setswitchinterval(SWITCH)
    return ThreadPoolExecutor(THREADS, "large-body")


async def apart(size: int, work: Callable[[], T]) -> T:
    """Run `work` and return its result. `size` is the size of the request's body in bytes. If the caller is
    cancelled, the work still runs to its end, so it must have no effects."""
    if size < LARGE:
        return work()
    in_context = contextvars.copy_context().run  # so that its log lines name the request
    return await asyncio.get_running_loop().run_in_executor(_threads(), in_context, work)
