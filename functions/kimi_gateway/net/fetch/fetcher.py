"""Fetches an address from a client: checked, pinned, and bounded in bytes, time, rate and redirects.

Every address that a name resolves to must be public, and the connection goes to the checked address, so a
name cannot point elsewhere between check and connection. Nothing of the client's request is sent along. A
proxy of the environment gets the checked address too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net.fetch.addresses import is_public
from kimi_gateway.net.fetch.opened import Opened, Unreachable
from kimi_gateway.net.fetch.opening import Opener
from kimi_gateway.net.fetch.target import BadTarget, Target, read, redirected
from kimi_gateway.net.http import ConnectionLost
from kimi_gateway.net.inflate import Inflater

if TYPE_CHECKING:
    import httpx2

RESOLVING = 5.0  # seconds
RESOLVED_AT_ONCE = 16  # names
REDIRECTS = 5
RATE = (1024, 10.0)  # least bytes a second, averaged over this number of seconds
RATIO = 100  # decoded bytes for each byte received
SLACK = 64 * 1024  # bytes that are decoded before the ratio applies
AT_ONCE = 64
_NOT_FETCHED = "The address could not be fetched."
NOT_FETCHED = f"{_NOT_FETCHED} It must be public and need no login; send other files as data."
_MOVED = (301, 302, 303, 307, 308)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class FetchFailed(Exception):
    """A text for the client. It is the same for addresses that are not public, unresolved, unreachable or
    timed out, so that nobody can use it to map a network. What the address itself shows, or a public server
    answered, is said. `cause` is for the log and contains neither address nor body."""

    def __init__(self, cause: str, message: str = NOT_FETCHED) -> None:
        super().__init__(message)
        self.cause = cause

    @classmethod
    def because(cls, cause: str, reason: str) -> FetchFailed:
        return cls(cause, f"{_NOT_FETCHED} {reason[:1].upper()}{reason[1:]}.")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one fetch: `size` in bytes after decoding, `seconds` in total."""

    size: int
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with status 200. `chunks` may raise FetchFailed. `length` is None if none was declared."""

    content_type: str
    length: int | None
    chunks: AsyncGenerator[bytes, None] = field(repr=False)


_names = ThreadPoolExecutor(RESOLVED_AT_ONCE, "resolve")  # makes threads when they are needed


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, from the system's resolver. Clients choose these names, and one whose server
    is silent blocks a thread long after its caller has given up. So the threads are not those that look up
    the upstream. Raises OSError."""
    asking = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_names, asking)
    return [str(entry[4][0]) for entry in found]


class Fetcher:
    """`allowed` are targets `host:port` that the operator permits although they are not public. `ports` are
    allowed besides 80 and 443. `transport` and `tls` replace httpx2's own."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        ports: frozenset[int] = frozenset(),
        at_once: int = AT_ONCE,
        resolver: Resolve = resolve,
        rate: tuple[float, float] = RATE,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        self._allowed = frozenset(each.lower() for each in allowed)
        self._resolve = resolver
        self._ports = ports | {int(port) for each in allowed if (port := each.rpartition(":")[2]).isdigit()}
        self._places = asyncio.Semaphore(at_once)
        self._rate = rate
        self._opener = Opener(at_once, transport, tls)

    async def close(self) -> None:
        await self._opener.close()

    @asynccontextmanager
    async def open(self, url: str, bounds: Bounds) -> AsyncIterator[Fetched]:
        """Open an address. The whole fetch, including the body, has `bounds.seconds`. Raises FetchFailed."""
        clock = asyncio.timeout(bounds.seconds)
        try:
            async with clock, self._places:
                response = await self._answer(url)
                try:
                    async with aclosing(_bounded(response, bounds.size, self._rate)) as chunks:
                        kind = response.headers.get("content-type", "")[:200]
                        yield Fetched(kind, _length(response, bounds.size), chunks)
                finally:
                    await response.close()
        except TimeoutError:
            if not clock.expired():
                raise
            raise FetchFailed("timeout") from None

    async def fetch(self, url: str, bounds: Bounds) -> tuple[str, bytes]:
        """The declared type and the whole body. Raises FetchFailed."""
        data = bytearray()
        async with self.open(url, bounds) as fetched:
            async for chunk in fetched.chunks:
                data += chunk
        return fetched.content_type, bytes(data)

    async def _answer(self, url: str) -> Opened:
        try:
            target = read(url, self._ports)
        except BadTarget as exc:
            raise FetchFailed.because("refused", str(exc)) from None
        try:
            for _ in range(REDIRECTS + 1):
                response = await self._ask(target, await self._judged(target))
                if response.status not in _MOVED:
                    break
                location = response.headers.get("location", "")
                await response.close()
                target = redirected(target, location, self._ports)
            else:
                raise FetchFailed("redirects")
        except BadTarget:
            raise FetchFailed("refused") from None
        if response.status != 200:
            await response.close()
            raise FetchFailed.because("status", f"It answered with the status {response.status}")
        return response

    async def _judged(self, target: Target) -> str:
        """The address to connect to: the target's first, if all are public. Raises FetchFailed."""
        addresses: Sequence[str]
        if target.literal is not None:
            addresses = [target.literal]
        else:
            try:
                async with asyncio.timeout(RESOLVING):
                    addresses = await self._resolve(target.host, target.port)
            except (OSError, UnicodeError, TimeoutError):
                raise FetchFailed("unresolved") from None
        if f"{target.host}:{target.port}" not in self._allowed and not all(map(is_public, addresses)):
            raise FetchFailed("refused")
        if not addresses:
            raise FetchFailed("unresolved")
        return addresses[0]

    async def _ask(self, target: Target, address: str) -> Opened:
        try:
            return await self._opener.open(target, address)
        except Unreachable as exc:
            raise FetchFailed(f"unreachable ({exc.cause})") from None


def _length(response: Opened, size: int) -> int | None:
    declared = response.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()) or "content-encoding" in response.headers:
        return None
    if len(declared) > 15 or int(declared) > size:
        raise _too_large(size)
    return int(declared)


async def _bounded(response: Opened, size: int, rate: tuple[float, float]) -> AsyncGenerator[bytes, None]:
    """The decoded body within the limits of size, ratio and rate. A slow reader does not count as a slow
    server. Raises FetchFailed."""
    received = given = 0
    try:
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        inflater = None if coding in ("", "identity") else Inflater(coding)
        async for part in _paced(response.parts, *rate):
            received += len(part)
            for piece in [part] if inflater is None else _inflated(inflater, part):
                given += len(piece)
                if given > size:
                    raise _too_large(size)
                if given > SLACK and given > received * RATIO:
                    raise FetchFailed("ratio")
                yield piece
        if inflater is not None:
            inflater.end()
    except ConnectionLost:
        raise FetchFailed("coding") from None
    except Unreachable as exc:
        raise FetchFailed(f"unreachable ({exc.cause})") from None


async def _paced(parts: AsyncIterator[bytes], least: float, span: float) -> AsyncIterator[bytes]:
    """The same parts. Raises FetchFailed if `span` seconds of waiting bring less than `least` bytes a
    second."""
    loop = asyncio.get_running_loop()
    waited, brought = 0.0, 0
    while True:
        begun = loop.time()
        clock = asyncio.timeout(span - waited)
        try:
            async with clock:
                part = await anext(parts, None)
        except TimeoutError:
            if not clock.expired():
                raise
            raise FetchFailed("rate") from None
        if part is None:
            return
        waited, brought = waited + loop.time() - begun, brought + len(part)
        if brought >= least * span:
            waited, brought = 0.0, 0
        yield part


def _inflated(inflater: Inflater, part: bytes) -> Iterator[bytes]:
    inflater.feed(part)
    while piece := inflater.read():
        yield piece


def _too_large(size: int) -> FetchFailed:
    return FetchFailed("size", f"The content of the address is larger than {size} bytes.")
