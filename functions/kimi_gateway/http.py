"""The request and the response: the interface between edges and the gateway."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import field
from typing import Protocol
from urllib.parse import parse_qsl

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.observe import RequestRecord

Pairs = tuple[tuple[str, str], ...]
MOST_FIELDS = 100  # of a query
LARGE = 64 * 1024  # bytes of a body whose reading costs more than a question to the store


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in order of arrival, names in lower case."""

    pairs: Pairs = field(repr=False)  # includes credentials
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
        """The first value of a header."""
        found = self._values.get(name)
        return found[0] if found else default


def sendable(value: str) -> bool:
    """Whether a header can contain the value as one word."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


class Query:
    """The fields of a query in order of arrival, decoded. A name may occur several times.

    `source` is the text behind the `?`, or fields that the edge has decoded. It is parsed only if an endpoint
    reads a field; that raises InvalidRequest if it has more than MOST_FIELDS fields or is not UTF-8.
    """

    __slots__ = ("_source", "_values")

    def __init__(self, source: str | Pairs = "") -> None:
        self._source = source
        self._values: dict[str, list[str]] | None = None

    def all(self, name: str) -> list[str]:
        if self._values is None:
            self._values = {}
            for each, value in self._pairs():
                self._values.setdefault(each, []).append(value)
        return self._values.get(name, [])

    def get(self, name: str, default: str = "") -> str:
        """The last value of a field."""
        found = self.all(name)
        return found[-1] if found else default

    def _pairs(self) -> Pairs:
        source = self._source
        if isinstance(source, str):
            if source.count("&") >= MOST_FIELDS:
                raise _too_many()
            try:
                return tuple(parse_qsl(source, keep_blank_values=True, errors="strict"))
            except ValueError as exc:
                raise InvalidRequest("The query is not valid UTF-8.") from exc
        if len(source) > MOST_FIELDS:
            raise _too_many()
        return source


def _too_many() -> InvalidRequest:
    return InvalidRequest(f"The query has more than {MOST_FIELDS} fields.")


async def _empty() -> bytes:
    return b""


async def _no_pieces() -> AsyncGenerator[bytes, None]:
    return
    yield b""


async def _nothing() -> None:
    return None


def _uncounted(size: int) -> None:
    return None


def _unbounded() -> None:
    return None


class Recording(Protocol):
    """Keeps an answer for a repeated request."""

    async def complete(self, headers: Sequence[tuple[str, str]], last: bytes) -> None:
        """The answer is complete with its `last` bytes, which the client does not have yet."""
        ...


@dataclass(slots=True)
class Request:
    """One request. `path` is percent-decoded, without the query.

    `body()` reads the body whole; `stream()` returns it in pieces as they come, and the client waits while a
    piece is processed. Use one of the two, once. They are functions so that a caller without a key is refused
    before anything is read. They raise BodyTooSlow, and BodyTooLarge above `limit` bytes, which routing sets.
    A client that leaves cancels the task that handles its request.

    `started` and `deadline`, by which the answer must have ended, are times of time.monotonic(). `record`
    collects facts for the request's log line. `recording` is set if the answer is kept for a repeated
    request.

    `hold` counts bytes that were made from the body, and raises Unavailable if the process has too many of
    them; `admitted` counts the request as running, and raises Unavailable if the account has too many bytes.
    """

    method: str
    path: str
    headers: Headers
    id: str
    body: Callable[[], Awaitable[bytes]] = _empty
    client: str = ""
    stream: Callable[[], AsyncGenerator[bytes, None]] = _no_pieces
    query: Query = field(default_factory=Query)
    limit: float = math.inf
    started: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    record: RequestRecord = field(default_factory=RequestRecord)
    recording: Recording | None = None
    hold: Callable[[int], None] = _uncounted
    admitted: Callable[[], None] = _unbounded

    def is_large(self) -> bool:
        """Whether the body may have more than LARGE bytes, by the headers alone."""
        if self.headers.all("transfer-encoding") or self.headers.all("content-encoding"):
            return True
        declared = self.headers.get("content-length")
        return declared.isdecimal() and (len(declared) > len(str(LARGE)) or int(declared) > LARGE)


class Client(Protocol):
    """Who gets the pieces of an answer."""

    @property
    def ready(self) -> bool:
        """Whether it takes a piece at once."""
        ...

    def send(self, piece: bytes) -> None: ...


@dataclass(slots=True)
class Response:
    """A response: `body` is sent at once, or in pieces as they come.

    After the last byte, or when the client has left, the edge awaits `close()` exactly once, shielded from
    cancellation. Money and upstream connections are settled there, never in generator finalisers.

    An edge may give `direct` the client before it reads `body`. While the edge waits for the next piece of
    `body`, the client may then get others, which are not in `body`.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncGenerator[bytes, None] = b""
    close: Callable[[], Awaitable[None]] = field(default=_nothing)
    direct: Callable[[Client], None] | None = None

    async def finish(self) -> None:
        """Close body and response. The edge calls it once, in a task of its own, so no cancellation can come
        between the two."""
        try:
            if not isinstance(self.body, bytes):
                await self.body.aclose()
        finally:
            close, self.close = self.close, _nothing  # it may refer back to the response
            await close()
