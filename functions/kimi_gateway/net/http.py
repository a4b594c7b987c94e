"""The one seam to upstream HTTP: what the gateway needs of a client, whichever it is.
Foreign exceptions end here; the texts of ours hold no header value, no URL and no body.

    NetError
    ├── ConnectFailed     nothing was sent: refused, unresolved, TLS, connect timeout, no free connection
    ├── ConnectionLost    reset, cut, or not readable as HTTP
    └── TimedOut          no answer within `first_byte`
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


class NetError(Exception): ...


class ConnectFailed(NetError): ...


def no_connection(host: str, error: BaseException) -> str:
    """Why none came about, for the operator: by the first cause that has a name."""
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


class TimedOut(NetError): ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect` bounds each step until a connection stands, `first_byte` the time from there to the
    answer's head. The wait between chunks is the caller's to bound.
    """

    connect: float
    first_byte: float


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names are lower-case."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes off the socket; one iterator per answer. Read to its end, it leaves the
        connection to the next request."""

    async def read(self, limit: int) -> bytes:
        """What is left of the body, at most `limit` bytes of it."""


async def read_up_to(limit: int, parts: AsyncIterator[bytes]) -> bytes:
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) >= limit:
            break
    return bytes(data[:limit])


class Client(Protocol):
    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """Leaving the context before the body's end closes the connection at once."""

    async def close(self) -> None: ...
