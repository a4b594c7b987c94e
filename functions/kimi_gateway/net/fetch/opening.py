"""The answer of one address: over a connection of our own, or over httpx2 where a proxy is in between.

Both connect to the address that was judged, and send the name for TLS and in Host. Our own connection costs a
third of the processor time.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from kimi_gateway import __version__
from kimi_gateway.net import tls as system
from kimi_gateway.net.connection import Connection
from kimi_gateway.net.fetch.opened import Opened, Unreachable
from kimi_gateway.net.fetch.target import Target
from kimi_gateway.net.http import ConnectFailed, NetError
from kimi_gateway.net.http1 import proxied

if TYPE_CHECKING:
    import httpx2

CONNECTING = 10.0  # seconds
PATIENCE = 3600.0  # seconds for a head; the whole fetch has a clock of its own
ARENA = 256 * 1024  # bytes of one read
BRISK = 2**20  # bytes until which each part is given on at once
LULL = 0.02  # seconds; many small reads cost more than their bytes
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": f"kimi-gateway/{__version__}"}


class Opener:
    """`transport` and `tls` replace httpx2's own; with a transport everything goes over httpx2."""

    def __init__(
        self, at_once: int, transport: httpx2.AsyncBaseTransport | None, tls: ssl.SSLContext | bool
    ) -> None:
        self._at_once, self._transport, self._tls = at_once, transport, tls
        self._arena = memoryview(bytearray(ARENA))
        self._proxied: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        if self._proxied is not None:
            await self._proxied.aclose()

    async def open(self, target: Target, address: str) -> Opened:
        """Raises Unreachable."""
        host = f"[{address}]" if ":" in address else address
        url = f"{target.scheme}://{host}:{target.port}{target.path}"
        headers = {**_HEADERS, "host": target.authority}
        if self._transport is not None or proxied(url, os.environ):
            return await self._over_httpx(url, headers, target.host)
        return await self._direct(headers, target, address)

    async def _direct(self, headers: dict[str, str], target: Target, address: str) -> Opened:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(CONNECTING):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._arena, lambda _: None),
                    address,
                    target.port,
                    ssl=await self._context() if target.scheme == "https" else None,
                    server_hostname=target.host if target.scheme == "https" else None,
                )
            if not connection.send("GET", _head(target.path, {**headers, "connection": "close"}), b""):
                raise ConnectFailed("the connection closed before the request was sent")
            await connection.answered(PATIENCE)
        except BaseException as exc:
            if connection is not None:
                connection.abort()
            if isinstance(exc, NetError | OSError | UnicodeError):
                raise Unreachable(exc) from None
            raise
        return _Direct(connection)

    async def _over_httpx(self, url: str, headers: dict[str, str], name: str) -> Opened:
        from kimi_gateway.net.fetch import through_proxy  # httpx2 loads slowly, and few gateways need it

        try:
            verify = self._tls if self._transport is not None else await self._context()
        except OSError as exc:
            raise Unreachable(exc) from None
        if self._proxied is None:
            self._proxied = through_proxy.client(self._at_once, CONNECTING, self._transport, verify)
        return await through_proxy.opened(self._proxied, url, headers, name)

    async def _context(self) -> ssl.SSLContext:
        return self._tls if isinstance(self._tls, ssl.SSLContext) else await system.context()


class _Direct:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self.parts = self._received()

    async def _received(self) -> AsyncGenerator[bytes, None]:
        connection, received = self._connection, 0
        try:
            while (data := connection.take()) is not None:
                if not data:
                    await connection.arrival()
                    continue
                received += len(data)
                yield data
                if received > BRISK and len(data) < ARENA:
                    await connection.rest(LULL)
        except NetError as exc:
            raise Unreachable(exc) from None

    async def close(self) -> None:
        self._connection.abort()


def _head(path: str, headers: Mapping[str, str]) -> bytes:
    """Raises ConnectFailed for what could be more than one request."""
    lines = [f"GET {path} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()]]
    if " " in path or not all(line.isascii() and line.isprintable() for line in lines):
        raise ConnectFailed("the request cannot be sent (address)")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
