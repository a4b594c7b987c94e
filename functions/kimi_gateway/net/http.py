"""The HTTP client interface for upstream calls. Implementations translate foreign exceptions into these; the
texts contain no header value, no URL and no body.

NetError
├── ConnectFailed     nothing was sent: refused, unresolved, TLS, connect timeout, no free connection
├── ConnectionLost    reset, cut, or not readable as HTTP
└── TimedOut          no answer within `first_byte`, or not all of one within `whole`
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kimi_gateway.dataclass import dataclass


class NetError(Exception): ...


class ConnectFailed(NetError): ...


def no_connection(host: str, error: BaseException) -> str:
    """A text for the operator, from the first cause that is known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"cannot resolve {host} (DNS)"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refuses connections"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {host} is not accepted ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return f"no connection to {host} ({type(error).__name__})"


class ConnectionLost(NetError): ...


class Stale(ConnectionLost):
    """A reused connection closed while the request was sent, before any byte of an answer."""


class TimedOut(NetError): ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect` bounds each step until the connection is open, `first_byte` the time from then to
    the answer's head, `whole` that of an answer which is read as a whole. The caller bounds the waits between
    chunks."""

    connect: float
    first_byte: float
    whole: float = 60


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by lower-case name."""

    def chunks(self, gathered: bool = False) -> AsyncIterator[bytes]:
        """The body as it arrives; call it once. After a complete read the connection can be reused.
        `gathered`: nobody waits for single parts, so reading may pause (`net/http1.py`)."""

    async def read(self, limit: int) -> bytes:
        """The rest of the body, at most `limit` bytes. Raises TimedOut."""


async def read_up_to(limit: int, parts: AsyncIterator[bytes], within: float) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(within):
            async for part in parts:
                data += part
                if len(data) >= limit:
                    break
    except TimeoutError:
        raise TimedOut(f"the answer did not end within {within:g} s") from None
    return bytes(data[:limit])


class Client(Protocol):
    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request. Leaving the context before the end of the body closes the connection."""

    def upload(
        self, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes], timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """A POST. The body is sent in chunks, unless `headers` have its length. `first_byte` begins when the
        body was sent; how long that takes, and what `body` raises, is the caller's matter."""

    async def close(self) -> None: ...
