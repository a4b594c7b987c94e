"""The request and the response, as every edge gives and takes them."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from kimi_gateway.observe import RequestRecord

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in order of arrival, names in lower case."""

    pairs: Pairs = field(repr=False)  # credentials are among them
    _values: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = self._values
        for name, value in self.pairs:
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def get(self, name: str, default: str = "") -> str:
        """The first, where there are several."""
        found = self._values.get(name)
        return found[0] if found else default


def sendable(value: str) -> bool:
    """Whether a header can carry it as one word."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


async def _empty() -> bytes:
    return b""


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class Request:
    """One request. `path` is percent-decoded, without the query.

    `body()` reads it whole, once, and raises BodyTooLarge; it is a function so that a caller without a key
    is refused before it is read. It holds `limit` bytes at most; routing lowers that. A client that leaves
    cancels the task that handles its request.
    `started`, and `deadline`, when its answer must have ended, are of time.monotonic(). `record` gathers
    facts for the request's one log line.
    """

    method: str
    path: str
    headers: Headers
    id: str
    body: Callable[[], Awaitable[bytes]] = _empty
    client: str = ""
    limit: float = math.inf
    started: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    record: RequestRecord = field(default_factory=RequestRecord)


@dataclass(slots=True)
class Response:
    """What an edge sends: all of `body` at once, or its pieces as they come.

    After the last byte, or when the client left, the edge awaits `close()` exactly once, shielded from
    cancellation. Money and upstream connections are settled there, never in generator finalisers.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncGenerator[bytes, None] = b""
    close: Callable[[], Awaitable[None]] = field(default=_nothing)

    async def finish(self) -> None:
        """For an edge, once, in a task of its own: so no cancellation can come between the two."""
        try:
            if not isinstance(self.body, bytes):
                await self.body.aclose()
        finally:
            await self.close()
