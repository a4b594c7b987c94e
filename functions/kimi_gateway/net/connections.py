"""A pool of open connections by origin: the newest idle one is reused first, and the total is bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

from kimi_gateway.net.connection import Connection
from kimi_gateway.net.http import ConnectFailed, no_connection

Origin = tuple[str, str, int]  # scheme, host, port

STAGGER = 0.25  # seconds until the next address of a host is tried in parallel (RFC 8305)
ARENA = 64 * 1024  # bytes of one read
FEW = 8  # answers at a time that get all of it
TURN = FEW * ARENA  # bytes that all answers together may bring in a turn of the loop
LEAST_READ = 4 * 1024


class Pool:
    """At most `most` slots; a slot lasts from the start of opening a connection until its socket is closed.

    A free slot goes to the longest waiter, and so does an idle connection of that waiter's origin.
    """

    def __init__(
        self, most: int, idle_age: float, tls: ssl.SSLContext | None, clock: Callable[[], float]
    ) -> None:
        self._most = most
        self._idle_age = idle_age
        self._tls = tls
        self.clock = clock
        self._slots = 0
        self._open: dict[Connection, Origin] = {}
        # Time at which each became idle. A dict works as a stack, and a closed connection can leave it at
        # once.
        self._idle: dict[Origin, dict[Connection, float]] = {}
        self._waiters: deque[tuple[Origin, asyncio.Future[Connection | None]]] = deque()
        self._arena = memoryview(bytearray(ARENA))
        self._reaper: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None

    def share(self) -> int:
        """Bytes of the next read. With many answers at a time each gets less, because other requests wait
        until all that can be read in a turn of the loop is processed."""
        if len(self._open) <= FEW:
            return ARENA
        busy = len(self._open) - sum(map(len, self._idle.values()))
        return ARENA if busy <= FEW else max(LEAST_READ, TURN // busy)

    def take(self, origin: Origin) -> Connection | None:
        """The connection that became idle last; None if there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.popitem()
            if self.clock() - since < self._idle_age:
                return connection
            connection.abort()
        return None

    def give(self, connection: Connection) -> None:
        origin = self._open[connection]
        while self._waiters:
            wanted, waiter = self._waiters.popleft()
            if waiter.done():
                continue
            if wanted == origin:
                waiter.set_result(connection)
            else:
                self._waiters.appendleft((wanted, waiter))
                connection.abort()
            return
        self._idle.setdefault(origin, {})[connection] = self.clock()
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(self._idle_age, self._reap)

    async def get(self, origin: Origin, within: float) -> tuple[Connection, bool]:
        """A new connection (False), or one that another request has just released (True). Raises
        ConnectFailed after `within` seconds."""
        if self._closing is not None:
            raise ConnectFailed("the client is closed")
        try:
            async with asyncio.timeout(within):
                if self._slots < self._most:
                    self._slots += 1
                elif handed := await self._turn(origin):
                    return handed, True
                return await self._connect(origin), False
        except TimeoutError:
            raise ConnectFailed(f"no connection within {within:g} s") from None

    def rest(self) -> None:
        """Close all idle connections."""
        for origin in list(self._idle):
            self.drop(origin)

    def drop(self, origin: Origin) -> None:
        """Close the idle connections of `origin`."""
        for connection in self._idle.pop(origin, {}):
            connection.abort()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        self._closing = loop.create_future()
        if self._reaper is not None:
            self._reaper.cancel()
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ConnectFailed("the client is closed"))
        self._waiters.clear()
        for connection in self._open:
            connection.abort()
        if self._open:
            await self._closing

    async def _turn(self, origin: Origin) -> Connection | None:
        """Wait for a connection, or for a free slot (None)."""
        for idle in self._idle.values():  # of other origins; this origin has none
            if idle:
                oldest = next(iter(idle))
                del idle[oldest]
                oldest.abort()
                break
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append((origin, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return(waiter.result())
            raise

    def _return(self, handed: Connection | None) -> None:
        if handed is None:
            self._freed()
        elif handed in self._open:
            self.give(handed)

    async def _connect(self, origin: Origin) -> Connection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        opened = False
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._arena, self._gone, self.share),
                host,
                port,
                ssl=await self._context() if scheme == "https" else None,
                happy_eyeballs_delay=_stagger(host),
            )
            if self._closing is not None or not connection.open:
                connection.abort()
                raise ConnectFailed("the connection closed as soon as it stood")
            opened = True
        except (OSError, UnicodeError) as exc:
            raise ConnectFailed(no_connection(host, exc)) from exc
        finally:
            if not opened:
                self._freed()
        self._open[connection] = origin
        return connection

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            from kimi_gateway.net import tls  # the demo and tests connect without TLS

            self._tls = await tls.context()
        return self._tls

    def _gone(self, connection: Connection) -> None:
        origin = self._open.pop(connection, None)
        if origin is None:
            return  # lost before `_connect` registered it, and counted there
        idle = self._idle.get(origin)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[origin]
        self._freed()
        if self._closing is not None and not self._open and not self._closing.done():
            self._closing.set_result(None)

    def _freed(self) -> None:
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._slots -= 1

    def _reap(self) -> None:
        """Close connections that have been idle too long; one lives at most twice the idle age."""
        self._reaper = None
        now = self.clock()
        for idle in self._idle.values():
            for connection in [one for one, since in idle.items() if now - since >= self._idle_age]:
                del idle[connection]
                connection.abort()
        if any(self._idle.values()):
            self._reaper = asyncio.get_running_loop().call_later(self._idle_age, self._reap)


def _stagger(host: str) -> float | None:
    """None for IP addresses: CPython 3.11 loses a socket if its race is cancelled in the turn in which it
    wins."""
    return None if ":" in host or host.replace(".", "").isdigit() else STAGGER
