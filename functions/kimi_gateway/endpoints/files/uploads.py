"""Uploads through a bucket, for files that are too large for a request to AWS.

The client asks for an address, puts the file there, and completes the upload. From the first step on there is
a record with the file's size, which takes the account's room, so no account fills the bucket. A record
without a token is of a file that no provider has.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from kimi_gateway.accounts.files import FileRecord, file_id
from kimi_gateway.endpoints.files.form import EMPTY, HELD, LONGEST_FIELD, TOO_LARGE, named
from kimi_gateway.errors import BodyTooLarge, Conflict, InvalidRequest, Unavailable
from kimi_gateway.http import Request
from kimi_gateway.net.http import Answer, NetError
from kimi_gateway.observe import emit
from kimi_gateway.pivot import fields, signatures
from kimi_gateway.providers.files import MOST_BYTES

if TYPE_CHECKING:
    from kimi_gateway.net.s3 import Bucket

SENT_WITHIN = 900  # seconds for which the address takes the file
COMPLETED_WITHIN = 3_600  # seconds after which an upload that was not completed ends
LONGEST_BODY = 8 * 1024  # bytes of a request that completes one


class Source(Protocol):
    """A file to upload: a form's, or an object's. `ended`: all of its bytes were taken."""

    filename: str
    size: int
    ended: bool

    @property
    def type(self) -> str: ...

    @property
    def whole(self) -> int | None: ...

    def chunks(self) -> AsyncGenerator[bytes, None]: ...


def place(record: FileRecord) -> str:
    """The object's key."""
    return f"{record.account}/{record.id}"


def asked(body: bytes, account: str, now: int) -> FileRecord:
    """The record for a request of an address. Raises InvalidRequest, BodyTooLarge."""
    size = fields.json_object(body).values.get("bytes")
    if type(size) is not int or size < 1:
        raise InvalidRequest("bytes: the size of the file is required, as an integer above 0.", param="bytes")
    if size > MOST_BYTES:
        raise BodyTooLarge(TOO_LARGE, param="bytes")
    return FileRecord(
        file_id(now), account, "", "kept", now, now + COMPLETED_WITHIN, filename="upload", size=size
    )


async def begun(bucket: Bucket, record: FileRecord) -> dict[str, Any]:
    """The answer with the address. Raises Unavailable."""
    from kimi_gateway.net.aws import AwsDown

    try:
        url = await bucket.address(place(record), record.size, SENT_WITHIN)
    except AwsDown as exc:
        raise _unavailable(exc) from exc
    return {
        "id": record.id,
        "object": "file.upload",
        "method": "PUT",
        "url": url,
        "bytes": record.size,
        "url_expires_at": record.created + SENT_WITHIN,
        "expires_at": record.expires,
    }


async def emptied(bucket: Bucket, record: FileRecord) -> None:
    """Delete the object. If that fails, the bucket's own rule deletes it within days."""
    from kimi_gateway.net.aws import AwsDown

    try:
        await bucket.delete(place(record))
    except AwsDown as exc:
        emit("upload_left", logging.WARNING, file=record.id, detail=str(exc))


def is_completion(request: Request) -> bool:
    return request.headers.get("content-type").partition(";")[0].strip().lower() == "application/json"


@asynccontextmanager
async def completing(
    bucket: Bucket, pieces: AsyncIterator[bytes], record: Callable[[str], Awaitable[FileRecord]]
) -> AsyncIterator[tuple[Stored, FileRecord]]:
    """The file in the bucket, and its record by `record`. Raises InvalidRequest, Conflict, Unavailable."""
    from kimi_gateway.net.aws import AwsDown
    from kimi_gateway.net.s3 import NoObject

    told = fields.json_object(await _small(pieces)).values
    pending = await record(_text(told, "upload"))
    if pending.token:
        raise Conflict(f"Upload {pending.id} was completed already.", param="upload")
    filename = named(_text(told, "filename").encode())
    try:
        async with bucket.read(place(pending)) as answer:
            stored = Stored(answer, filename, _fields(told))
            await stored.start()
            yield stored, pending
    except NoObject:
        raise InvalidRequest(
            "upload: its address has no file yet. Send the file there with PUT first.", param="upload"
        ) from None
    except AwsDown as exc:
        raise _unavailable(exc) from exc


class Stored:
    """An object as a file to upload. `chunks` may be read once."""

    def __init__(self, answer: Answer, filename: str, given: dict[str, str]) -> None:
        self.fields = given
        self.filename = filename
        self.head = b""
        self.ended = False
        length = answer.headers.get("content-length", "")
        self.size = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0
        self._chunks = answer.chunks()
        self._held: list[bytes] = []

    async def start(self) -> None:
        """Read the first bytes. Raises InvalidRequest, BodyTooLarge, Unavailable."""
        if self.size > MOST_BYTES:
            raise BodyTooLarge(TOO_LARGE, param="upload")
        held = 0
        while held < HELD and (piece := await self._next()):
            self._held.append(piece)
            held += len(piece)
        self.head = b"".join(self._held)[:HELD]
        if not (self.head and self.size):
            raise InvalidRequest(EMPTY, param="upload")

    @property
    def whole(self) -> int:
        return self.size

    @property
    def type(self) -> str:
        import mimetypes  # loads slowly, and few requests need it

        return mimetypes.guess_type(self.filename)[0] or signatures.of(self.head).media_type

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self._held:
            yield piece
        self._held = []
        while piece := await self._next():
            yield piece
        self.ended = True

    async def _next(self) -> bytes:
        """The next bytes; empty at the end. A failure of the bucket is not one of the provider."""
        try:
            while not (piece := await anext(self._chunks)):
                pass
        except StopAsyncIteration:
            return b""
        except NetError as exc:
            raise _unavailable(exc) from exc
        return piece


def _fields(told: Mapping[str, Any]) -> dict[str, str]:
    """The fields that a form would have."""
    given = {"purpose": _text(told, "purpose")} if told.get("purpose") is not None else {}
    after = told.get("expires_after")
    if after is not None and not isinstance(after, dict):
        raise InvalidRequest("expires_after: must be an object.", param="expires_after")
    for name, value in (after or {}).items():
        given[f"expires_after[{name}]"] = str(value)[:LONGEST_FIELD]
    if (seconds := told.get("expires_in_seconds")) is not None:
        given["expires_in_seconds"] = str(seconds)[:LONGEST_FIELD]
    return given


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_FIELD:
        raise InvalidRequest(f"{name}: a string is required.", param=name)
    return value


async def _small(pieces: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > LONGEST_BODY:
            raise BodyTooLarge(
                f"A request that completes an upload has at most {LONGEST_BODY} bytes; send a file as"
                " multipart/form-data."
            )
    return bytes(body)


def _unavailable(error: Exception) -> Unavailable:
    emit("uploads", logging.ERROR, detail=str(error))
    return Unavailable(
        "The gateway cannot read or write its uploads at present.", retry_after=1, cause="uploads"
    )
