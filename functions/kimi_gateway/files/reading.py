"""The bytes of an attachment as they come, from base64 or from an address; never the whole in memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kimi_gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, UnreadableImage
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.budget import Share
from kimi_gateway.pivot.attachments import Address, Attachment, Inline, MediaUrl
from kimi_gateway.pivot.signatures import FileType

if TYPE_CHECKING:
    from kimi_gateway.net.fetch.fetcher import Fetcher

SENT = 256 * 1024  # bytes of an upload that are sent at a time
_GROUP = 4 * 48 * 1024  # base64 characters that are decoded at a time


class Reader:
    """`held` is the beginning as far as `fill` has read it. `size` is None if it is not known before the
    end."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        size: int | None,
        name: str | None,
        digest: Callable[[], Awaitable[str]] | None = None,
        hold: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._hold = hold  # counts the growth of `held`
        self.held = bytearray()
        self.ended = False
        self.size = size
        self.name = name
        self._chunks = chunks
        self._digest = digest

    async def fill(self, least: int) -> bytes:
        """Read until `held` has at least `least` bytes, or all. Returns `held`."""
        while len(self.held) < least and not self.ended:
            await self._next()
        return bytes(self.held)

    async def _next(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            self.ended = True
        else:
            self._hold(len(chunk))
            self.held += chunk

    async def _gathered(self) -> bytes:
        """The next SENT bytes, or all that are left."""
        chunks, size = list[bytes](), 0
        while size < SENT and not self.ended:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                self.ended = True
            else:
                chunks.append(chunk)
                size += len(chunk)
        return b"".join(chunks)

    async def known_digest(self) -> str | None:
        """The SHA-256 of the whole, where it is known without reading on."""
        if self.ended:
            return hashlib.sha256(self.held).hexdigest()
        return None if self._digest is None else await self._digest()

    async def stream(
        self, ended: Callable[[str], Awaitable[None]] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """All bytes, from the first on; call it once. `ended` gets the SHA-256 before the last chunk is
        given, and may raise. Chunks are large, since each costs the client of the upload some time."""
        digest, last = hashlib.sha256(), b""
        piece = bytes(self.held)
        self._hold(-len(self.held))
        self.held.clear()
        while piece or not self.ended:
            if piece:
                if last:
                    yield last
                last = piece
                if ended is not None:
                    digest.update(last)
            piece = await self._gathered()
        if ended is not None:
            await ended(digest.hexdigest())
        if last:
            yield last


@asynccontextmanager
async def reading(
    attachment: Attachment, bounds: Bounds, fetcher: Callable[[], Fetcher], share: Share
) -> AsyncIterator[Reader]:
    """Opens an attachment with bytes of its own. Raises GatewayError naming the field; so does reading."""
    source, hold = attachment.source, partial(share.hold, attachment)
    if isinstance(source, Inline):
        size = decoded_size(source.data)
        if size > bounds.size:
            raise too_large(attachment, bounds.size)
        async with aclosing(_decoded(attachment, source.data)) as chunks:
            reader = Reader(chunks, size, attachment.filename, lambda: _digest(attachment, source.data), hold)
            try:
                yield reader
            finally:
                hold(-len(reader.held))
        return
    assert isinstance(source, Address)  # noqa: S101  the other sources have no bytes
    from kimi_gateway.net.fetch import fetcher as fetch  # httpx2 loads slowly, and few requests need it

    try:
        async with (
            share.fetch(bounds.seconds),
            fetcher().open(source.url, fetch.Bounds(bounds.size, bounds.seconds)) as fetched,
        ):
            name = attachment.filename or named(source.url)
            reader = Reader(_fetched(attachment, fetched.chunks, share), fetched.length, name, None, hold)
            try:
                yield reader
            finally:
                hold(-len(reader.held))
    except fetch.FetchFailed as exc:
        raise _not_fetched(attachment, exc) from exc


async def _fetched(
    attachment: Attachment, chunks: AsyncIterator[bytes], share: Share
) -> AsyncGenerator[bytes, None]:
    from kimi_gateway.net.fetch.fetcher import FetchFailed

    try:
        async for chunk in chunks:
            share.read(attachment, len(chunk))
            yield chunk
    except FetchFailed as exc:
        raise _not_fetched(attachment, exc) from exc


def _not_fetched(attachment: Attachment, failure: Exception) -> GatewayError:
    cause = getattr(failure, "cause", "")
    error = BodyTooLarge if cause == "size" else _error(attachment)
    return error(f"{attachment.field}: {failure}", param=attachment.field, cause=f"fetch: {cause}")


def wrong(attachment: Attachment, why: str) -> InvalidRequest:
    return _error(attachment)(f"{attachment.field}: {why}", param=attachment.field)


def _error(attachment: Attachment) -> type[InvalidRequest]:
    return UnreadableImage if attachment.kind == "image" else InvalidRequest


async def _decoded(attachment: Attachment, data: str) -> AsyncGenerator[bytes, None]:
    for piece in _pieces(attachment, data):
        yield piece
        await asyncio.sleep(0)  # many decode at a time


def _pieces(attachment: Attachment, data: str) -> Iterator[bytes]:
    for at in range(0, len(data), _GROUP):
        try:
            yield base64.b64decode(data[at : at + _GROUP], validate=True)
        except (binascii.Error, ValueError):
            raise wrong(attachment, "the data is not valid base64") from None


async def _digest(attachment: Attachment, data: str) -> str:
    def whole() -> str:
        digest = hashlib.sha256()
        for piece in _pieces(attachment, data):
            digest.update(piece)
        return digest.hexdigest()

    return await asyncio.to_thread(whole)


def decoded_size(data: str) -> int:
    """The bytes of valid base64."""
    return max(len(data) * 3 // 4 - data[-2:].count("="), 0)


def too_large(attachment: Attachment, most: int) -> BodyTooLarge:
    message = f"{attachment.field}: the file is larger than {most} bytes"
    return BodyTooLarge(message, param=attachment.field)


def named(url: str) -> str | None:
    """The file name at the end of an address, if there is one with an extension."""
    try:
        name = unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return None
    kept = "".join(ch for ch in name if ch.isprintable())[-200:]
    return kept if 0 < kept.rfind(".") < len(kept) - 1 else None


async def whole(attachment: Attachment, reader: Reader, type: FileType, most: int) -> MediaUrl:
    """A document for a provider that takes it within the request. Raises BodyTooLarge."""
    data = await reader.fill(most + 1)
    if len(data) > most:
        raise too_large(attachment, most)
    name = attachment.filename or reader.name or f"document.{type.extension}"
    return MediaUrl(f"data:{type.media_type};base64,{base64.b64encode(data).decode()}", "file", name)
