"""`Client` over our own HTTP/1.1: a pool of connections on asyncio transports, parsed by httptools.

It connects to origins only. If a proxy of the environment applies (`proxied`), the client over httpx2 is
used.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from kimi_gateway.net.connection import Connection
from kimi_gateway.net.connections import Origin, Pool
from kimi_gateway.net.http import Answer, ConnectFailed, ConnectionLost, Stale, Timeouts, read_up_to
from kimi_gateway.net.inflate import Inflater
from kimi_gateway.net.wire import head, locate, streamed_head

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# A body whose parts nobody waits for: a read costs more than the few parts of a burst that it brings.
QUICK = 0.0005  # seconds after the read before; two such reads in a row are a burst
PAUSE = 0.001  # seconds; the loop waits for whole milliseconds


class Http1Client:
    """Connections are reused for 30 s, newest first. Redirects are not followed, cookies not kept.
    `Timeouts.connect` bounds the wait for a free connection, DNS, TCP and TLS together.

    A request is sent again in two cases only. If a reused connection turns out closed before a byte of the
    request was sent, the next connection is used, whatever the method. If a reused connection closes after
    the request was sent and before any byte of an answer, the idle connections of that origin are dropped,
    and a GET, HEAD or OPTIONS is sent once more. A POST is not, because the server may have acted on it: the
    caller gets `Stale`.
    """

    def __init__(
        self,
        connections: int = 1000,
        *,
        tls: ssl.SSLContext | None = None,
        idle_age: float = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = connections  # at a time
        self._pool = Pool(connections, idle_age, tls, clock)

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        return _Exchange(self._pool, method, url, headers, body, timeouts)

    def upload(
        self, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes], timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        return _Upload(self._pool, url, headers, body, timeouts)

    def rest(self) -> None:
        """A load is over: close the idle connections."""
        self._pool.rest()

    async def close(self) -> None:
        await self._pool.close()


class _Exchange:
    """One request and its answer. The answer is read from the connection until the context ends."""

    __slots__ = (
        "_connection",
        "_gathered",
        "_inflater",
        "_latest",
        "_pool",
        "_quick",
        "_request",
        "_timeouts",
        "headers",
        "status",
    )

    def __init__(
        self,
        pool: Pool,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
    ) -> None:
        self._pool = pool
        self._request = (method, url, headers, body)
        self._timeouts = timeouts
        self._connection: Connection | None = None
        self._inflater: Inflater | None = None
        self._gathered = False
        self._quick, self._latest = 0, 0.0  # quick reads in a row, and when the last read was

    async def __aenter__(self) -> Answer:
        method, url, headers, body = self._request
        address = locate(url)
        connection = await self._ask(address.origin, method, head(method, address, headers, len(body)), body)
        return self._begun(connection)

    def _begun(self, connection: Connection) -> Answer:
        """The answer's head is here."""
        self.status: int = connection.status
        self.headers: Mapping[str, str] = connection.headers
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", ""):
            try:
                self._inflater = Inflater(coding)
            except ConnectionLost:
                connection.abort()
                raise
        self._connection = connection
        return self

    async def _ask(self, origin: Origin, method: str, head: bytes, body: bytes) -> Connection:
        again = method in SAFE
        while True:
            connection = self._pool.take(origin)
            reused = connection is not None
            if connection is None:
                connection, reused = await self._pool.get(origin, self._timeouts.connect)
            if not connection.send(method, head, body):
                connection.abort()
                if not reused:
                    raise ConnectFailed("the connection closed before the request was sent")
                continue
            try:
                await connection.answered(self._timeouts.first_byte)
                return connection
            except ConnectionLost as lost:
                if not (reused and connection.unheard):
                    raise
                self._pool.drop(origin)
                if not again:
                    raise Stale(str(lost)) from lost
                again = False
            except BaseException:
                connection.abort()
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.release():
            self._pool.give(connection)

    def chunks(self, gathered: bool = False) -> AsyncIterator[bytes]:
        """The body; each chunk has all bytes since the one before."""
        self._gathered = gathered
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._received() if self._inflater is None else self._inflated(self._inflater)

    async def _received(self) -> bytes:
        while True:
            connection = (
                self._connection
            )  # read again after each wait, because another request may own it by then
            if connection is None:
                raise ConnectionLost("the answer was left before its end")
            data = connection.take()
            if data is None:
                raise StopAsyncIteration
            if data:
                if self._gathered:
                    now = self._pool.clock()
                    self._quick = self._quick + 1 if now - self._latest < QUICK else 0
                    self._latest = now
                return data
            if self._quick > 1:
                self._quick = 1  # the next quick read is in the same burst
                await connection.rest(PAUSE)
                self._latest = self._pool.clock()
            else:
                await connection.arrival()

    async def _inflated(self, inflater: Inflater) -> bytes:
        await asyncio.sleep(0)  # one read may inflate to many pieces, so other tasks get a turn
        while not (data := inflater.read()):
            try:
                received = await self._received()
            except StopAsyncIteration:
                inflater.end()
                raise
            inflater.feed(received)
        return data

    async def read(self, limit: int) -> bytes:
        return await read_up_to(limit, self, self._timeouts.whole)


class _Upload(_Exchange):
    """It is never sent again, because a part of its body is used up. A server that answers before the end
    gets no more of the body."""

    __slots__ = ("_parts",)

    def __init__(
        self,
        pool: Pool,
        url: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        timeouts: Timeouts,
    ) -> None:
        super().__init__(pool, "POST", url, headers, b"", timeouts)
        self._parts = body

    async def __aenter__(self) -> Answer:
        method, url, headers, _ = self._request
        address = locate(url)
        head, length = streamed_head(method, address, headers)
        connection, reused = await self._begin(address.origin, head)
        try:
            await _send(connection, self._parts, length)
            await connection.answered(self._timeouts.first_byte)
        except ConnectionLost as lost:
            if reused and connection.unheard:
                self._pool.drop(address.origin)
                raise Stale(str(lost)) from lost
            raise
        except BaseException:
            connection.abort()
            raise
        return self._begun(connection)

    async def _begin(self, origin: Origin, head: bytes) -> tuple[Connection, bool]:
        """A connection with the head on it, and whether it was used before. Raises ConnectFailed."""
        while True:
            connection = self._pool.take(origin)
            reused = connection is not None
            if connection is None:
                connection, reused = await self._pool.get(origin, self._timeouts.connect)
            if connection.send("POST", head, b""):
                return connection, reused
            connection.abort()
            if not reused:
                raise ConnectFailed("the connection closed before the request was sent")


async def _send(connection: Connection, parts: AsyncIterator[bytes], length: int | None) -> None:
    """Send the body until the server answers or the connection is lost. `length` is in bytes, None for
    chunks. Raises ConnectFailed if the body has another length, and what `parts` raises."""
    count, ends = 0, b""
    async for part in parts:
        count += len(part)
        if length is not None:
            if count > length:
                raise ConnectFailed("the request cannot be sent (length)")
        elif part:
            part, ends = b"%b%x\r\n%b" % (ends, len(part), part), b"\r\n"
        if part and not await connection.sent(part):
            connection.spoil()
            return
    if length is None:
        await connection.sent(ends + b"0\r\n\r\n")
    elif count != length:
        raise ConnectFailed("the request cannot be sent (length)")


def proxied(url: str, environ: Mapping[str, str]) -> bool:
    """Whether a proxy of the environment applies to `url`. An unclear NO_PROXY means that it does."""
    proxies: dict[str, str] = {}
    for name in sorted(environ):  # so lower-case names come last and win
        scheme, found, rest = name.lower().rpartition("_proxy")
        if found and not rest:
            proxies[scheme] = environ.get(name, "")  # another thread may have taken it away
    scheme, host, port = locate(url).origin
    if not (proxies.get(scheme) or proxies.get("all")):
        return False
    if proxies.get("no", "").strip() == "*":
        return False
    names = (host, f"{host}:{port}")
    for entry in proxies.get("no", "").lower().split(","):
        entry = entry.strip().lstrip(".")
        if entry and any(name == entry or name.endswith(f".{entry}") for name in names):
            return False
    return True
