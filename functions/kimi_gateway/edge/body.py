"""Bounds on a request's body, for every edge: size, pace, number of chunks, and unpacked size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from kimi_gateway.errors import BodyTooLarge, BodyTooSlow, InvalidRequest, UnsupportedMedia
from kimi_gateway.http import Headers, Request

FIRST_BYTE = 30.0  # seconds until a body begins
LEAST_RATE = 1024  # bytes a second, on average over each WINDOW
WINDOW = 10.0  # seconds
PIECE = 128 * 1024  # bytes unpacked before other tasks get a turn
LARGEST_WINDOW = 23  # bits of a zstd window, as RFC 8878 recommends
PLAIN = ("", "identity")
FREE_CHUNKS = 10_000  # chunks of a body that may have any size
LEAST_CHUNK = 64  # bytes, on average over all chunks; each costs as much as a hundred bytes


class Pace:
    """Checks that a body arrives fast enough. `due` is the time of the next check, by the clock of `now`."""

    def __init__(self, now: float, size: int) -> None:
        self.due = now + FIRST_BYTE
        self._begun = False
        self._size = 0
        self.late(now, size)

    def late(self, now: float, size: int) -> bool:
        """Whether the body is too slow; `size` is the number of bytes so far."""
        if not self._begun and size:
            self._begun = True
        elif now < self.due:
            return False
        elif not self._begun or size - self._size < LEAST_RATE * WINDOW:
            return True
        self._size, self.due = size, now + WINDOW
        return False


class Stopwatch:
    """A clock that does not count the time in which the gateway keeps the client waiting."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stopped = 0.0  # seconds in all

    def time(self) -> float:
        return self._clock() - self._stopped

    def real(self, time: float) -> float:
        """A time of this clock as one of the clock below it, if it is not stopped again until then."""
        return time + self._stopped

    @contextmanager
    def stopped(self) -> Iterator[None]:
        since = self._clock()
        try:
            yield
        finally:
            self._stopped += self._clock() - since


def too_slow(headers: tuple[tuple[str, str], ...] = ()) -> BodyTooSlow:
    return BodyTooSlow(
        f"The body came too slowly: it must begin within {FIRST_BYTE:g} seconds, and then bring {LEAST_RATE}"
        f" bytes a second. Send the request again.",
        headers=headers,
    )


def too_fine(chunks: int, size: int) -> bool:
    """Whether a body of `size` bytes came in more chunks than anyone needs."""
    return chunks > FREE_CHUNKS + size // LEAST_CHUNK


def refused_chunks() -> InvalidRequest:
    return InvalidRequest(
        f"The body came in too many tiny chunks: they must have {LEAST_CHUNK} bytes on average."
        " Send larger chunks, or a Content-Length.",
        cause="chunks",
    )


def refused_head(headers: Headers, newest: bool) -> InvalidRequest | None:
    """The error of a head that HTTP does not allow; `newest` for HTTP/1.1. A coding beside `chunked` would be
    read as content (RFC 9112, section 6.1)."""
    if newest and not headers.all("host"):
        return InvalidRequest("The Host header is missing, which HTTP/1.1 requires.", cause="host")
    codings = headers.all("transfer-encoding")
    if codings and (len(codings) > 1 or codings[0].strip().lower() != "chunked"):
        return InvalidRequest(
            "The only Transfer-Encoding is `chunked`. Name a compression in Content-Encoding.",
            cause="transfer-encoding",
        )
    return None


def too_large(limit: float) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit:.0f} bytes.")


def check_length(headers: Headers, limit: float) -> None:
    """Check the declared length before reading. Raises BodyTooLarge."""
    length = headers.get("content-length")
    if length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise too_large(limit)


def unpack(request: Request) -> None:
    """Removes the Content-Encoding from `request.body` and `request.stream`.

    They then raise UnsupportedMedia and InvalidRequest too, and the limit counts the unpacked bytes.
    """
    read, pieces = request.body, request.stream

    async def body() -> bytes:
        pieces = list[bytes]()
        async for piece in _unpacked(request, _read(read)):
            request.hold(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    request.body = body
    request.stream = lambda: _unpacked(request, pieces())


async def _read(read: Callable[[], Awaitable[bytes]]) -> AsyncGenerator[bytes, None]:
    yield await read()


def _decoder(coding: str) -> Any:
    if coding in ("gzip", "x-gzip"):
        import zlib  # rarely needed; keeps cold starts short

        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    zstd = _zstd()
    if coding == "zstd" and zstd is not None:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: LARGEST_WINDOW})
    known = "gzip" if zstd is None else "gzip, zstd"
    raise UnsupportedMedia(
        f"The content-encoding {coding[:40]!r} is not supported; send the body as it is, or as {known}.",
        headers=(("accept-encoding", known),),
    )


def _zstd() -> Any:
    """The standard library's zstd, from Python 3.14 on; None before."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return zstd


async def _unpacked(request: Request, packed: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Unpack in pieces, and give other tasks a turn between them.

    Raises UnsupportedMedia, InvalidRequest, BodyTooLarge.
    """
    coding = ",".join(request.headers.all("content-encoding")).strip().lower()
    decoder = None if coding in PLAIN else _decoder(coding)
    size = 0
    async with aclosing(packed):
        async for part in packed:
            for piece in (part,) if decoder is None else _decoded(decoder, part):
                size += len(piece)
                if size > request.limit:
                    raise too_large(request.limit)
                yield piece
                if len(piece) == PIECE:
                    await asyncio.sleep(0)
    if decoder is not None and not decoder.eof:
        raise InvalidRequest("The compressed body is incomplete.")


def _decoded(decoder: Any, part: bytes) -> Iterator[bytes]:
    """The unpacked pieces of one part of a compressed body. Raises InvalidRequest."""
    if decoder.eof and part:
        raise _behind()
    while not decoder.eof:
        try:
            piece = decoder.decompress(part, PIECE)
        except Exception as exc:  # zlib.error, ZstdError: whatever the library raises, the body is at fault
            raise InvalidRequest("The body does not match its content-encoding.") from exc
        part = getattr(decoder, "unconsumed_tail", b"")
        if piece:
            yield piece
        elif not part and not decoder.eof:
            return  # the rest comes with the next part
    if decoder.unused_data:
        raise _behind()


def _behind() -> InvalidRequest:
    return InvalidRequest("The body has extra bytes after its compressed content.")
