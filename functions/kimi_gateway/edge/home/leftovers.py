"""Gives memory back to the system when a load is over.

Python has small objects in arenas of 1 MiB, and an arena goes back to the system only when nothing is left in
it. So a few objects that outlive a load keep most of its memory: records of requests, idle connections,
entries of caches. They are packed, closed and dropped.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import marshal
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.edge.home.allocator import trim
from kimi_gateway.edge.home.counting import resident
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.observe import RequestRecord, events

if TYPE_CHECKING:
    from kimi_gateway.edge.home.asgi import App

LOOKS = 5.0  # seconds between looks at the size
ENOUGH = 4 * 2**20  # bytes above the least size that are worth a try
FEW = 16  # requests that may run during a try: it takes longer the more objects there are
LONGEST = 63  # looks to wait after tries that gave nothing
BLOCK = 100  # records that are packed together, in less than a millisecond
PACE = 0.02  # seconds between two blocks
_ITERATORS = 255  # that asyncio keeps for later waits


class Recent(deque[tuple[float, RequestRecord]]):
    """The latest requests, `most` of them; `copy` has all of them, oldest first."""

    def __init__(self, latest: Iterable[tuple[float, RequestRecord]], most: int) -> None:
        super().__init__(latest, most)
        self._blocks: deque[bytes] = deque((), -(-most // BLOCK))  # those before
        self._rest = marshal.dumps([])  # behind them, less than a block

    def copy(self) -> Recent:
        """Packed ones lack their trace."""
        lines = [line for block in (*self._blocks, self._rest) for line in marshal.loads(block)]  # noqa: S302  our own
        older = [(at, RequestRecord(**fields)) for at, fields in lines]
        return Recent([*older, *self], self.maxlen or 0)

    def pack(self, least: int = BLOCK) -> bool:
        """Pack the oldest, because thousands of small objects hold on to the memory around them. Fewer than
        `least` are left as they are. Whether there are more to pack."""
        if len(self) < least:
            return False
        oldest = list(itertools.islice(self, BLOCK))
        lines = [*marshal.loads(self._rest), *[(at, record.fields()) for at, record in oldest]]  # noqa: S302
        whole = len(lines) // BLOCK * BLOCK
        try:
            block, rest = marshal.dumps(lines[:whole]), marshal.dumps(lines[whole:])
        except ValueError:  # marshal does not know a value
            return False
        self._rest = rest
        if whole:
            self._blocks.append(block)
        for _ in oldest:
            self.popleft()
        return len(self) >= BLOCK


class Leftovers:
    """`look` calls `release` if the process, of `size` bytes, stays larger than it was, and at most FEW
    requests are `running`. It waits longer after each try, until the size was small or grows again."""

    def __init__(
        self, size: Callable[[], float], running: Callable[[], int], release: Callable[[], None]
    ) -> None:
        self._size = size
        self._running = running
        self._release = release
        self._least = self._low = size()  # ever, and since the last try
        self._pause = self._wait = 0  # looks

    def look(self) -> None:
        size = self._size()
        self._least, self._low = min(self._least, size), min(self._low, size)
        if size > self._low + ENOUGH or size <= self._least + ENOUGH:
            self._pause = self._wait = 0
        if size <= self._least + ENOUGH or self._running() > FEW:
            return
        if self._wait:
            self._wait -= 1
            return
        self._pause = self._wait = min(2 * self._pause + 1, LONGEST)
        self._low = size
        self._release()


def watch(app: App) -> None:
    """Look from now on, as long as the loop runs. What a try needs is loaded now, because a module that is
    loaded behind a load holds on to memory in many places."""
    loop, running = asyncio.get_running_loop(), app.running
    if running is None:
        return
    gateway, client, store = running.gateway, running.client, running.store
    if hasattr(store, "rest"):
        import kimi_gateway.storage.sqlite.cursors  # noqa: F401
    recent = events.recent = Recent(events.recent, events.recent.maxlen or 0)

    async def give_back() -> None:
        if isinstance(client, Http1Client):
            client.rest()
        with suppress(StoreDown):
            if rest := getattr(store, "rest", None):
                await rest()
        recent.pack(least=1)
        await asyncio.sleep(0)  # the connections are closed now
        collect(loop)

    running_try: set[asyncio.Task[None]] = set()

    def release() -> None:
        running_try.add(task := loop.create_task(give_back()))
        task.add_done_callback(running_try.discard)

    leftovers = Leftovers(resident, lambda: len(gateway.turns), release)

    def pack() -> None:
        if recent.pack():
            loop.call_later(PACE, pack)

    def look() -> None:
        pack()
        leftovers.look()
        loop.call_later(LOOKS, look)

    loop.call_later(LOOKS, look)


def collect(loop: asyncio.AbstractEventLoop) -> None:
    """Drop what Python, asyncio and the C library keep for later."""
    if sys.version_info < (3, 13):
        sys._clear_type_cache()  # it holds names of methods, which C code makes for each call
    future = loop.create_future()
    waits = [future.__await__() for _ in range(2 * _ITERATORS)]  # first those that asyncio has kept
    del waits[_ITERATORS:]  # it keeps these in their place
    del waits
    gc.collect()
    trim()
