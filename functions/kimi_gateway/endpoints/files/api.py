"""The Files API: uploads and contents are passed on while they come, and each account sees its own files.

A record is written before the upload, so that a crash leaves no file behind that nobody knows of: from its
`expires` on any process may delete both (kimi_gateway/accounts/files.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kimi_gateway.accounts.files import FileRecord, FileStore, NoRoom, Room, file_id
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects import errors
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_for_files
from kimi_gateway.endpoints.files.form import Form
from kimi_gateway.endpoints.files.purposes import Wanted, kind_of, wanted
from kimi_gateway.endpoints.files.shapes import Anthropic, OpenAi, Shape
from kimi_gateway.endpoints.files.uploads import Source, asked, begun, completing, emptied, is_completion
from kimi_gateway.errors import (
    BodyTooSlow,
    Conflict,
    GatewayError,
    InvalidRequest,
    NotDownloadable,
    NotFound,
    Unavailable,
)
from kimi_gateway.files.service import FileService
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import emit
from kimi_gateway.providers.failures import CLIENTS_FAULT, OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.files import MOST_BYTES, Files, KeepsFiles
from kimi_gateway.providers.provider import Token, Upstream

if TYPE_CHECKING:
    from kimi_gateway.net.s3 import Bucket

UPLOADED_WITHIN = 3_000  # seconds for one upload
SWEPT_AFTER = UPLOADED_WITHIN + 600  # seconds after which an unfinished one is nobody's
ROOM_NOW = "The upstream account was full, and has room again. Send the file again."
REFUSED = (
    OTHER_TOKEN | CLIENTS_FAULT | {"room"}
)  # causes with an answer, so that the provider has no such file
OPENAI, ANTHROPIC = OpenAi(), Anthropic()
T = TypeVar("T")


@dataclass(slots=True)
class FilesApi:
    """`patience`: seconds between two pieces of a content, and for a deletion at the provider. `bucket` takes
    files that are too large for a request."""

    gate: Gate
    store: FileStore
    upstream: Callable[[], Upstream]
    room: Room
    patience: float
    attachments: FileService
    within: float = UPLOADED_WITHIN
    bucket: Bucket | None = None

    async def create(self, request: Request) -> Response:
        key = await authenticate_for_files(self.gate, request)
        await self.gate.refuse_unpaid(key)
        files = self._files()
        form: Form | None = None
        try:
            with self.gate.places.held(key.account):
                async with asyncio.timeout(self.within), aclosing(request.stream()) as pieces:
                    if self.bucket is not None and is_completion(request):
                        return await self._complete(request, key, files, self.bucket, pieces)
                    form = Form(request.headers.get("content-type"), pieces)
                    await form.start()
                    kind = kind_of(form.head)
                    about = wanted(form.fields, kind, _shape(request) is ANTHROPIC)
                    record = await self._upload(request, key, files, form, about)
        except TimeoutError:
            raise BodyTooSlow(f"The upload took more than {self.within:g} seconds.") from None
        except GatewayError as error:
            if not isinstance(error, Unavailable):
                self.gate.wasted(key, form.size if form else 0)
            raise
        return answer(_shape(request).file(record))

    async def begin(self, request: Request) -> Response:
        """Return an address for a file that is too large for a request. Its record takes the room."""
        key = await authenticate_for_files(self.gate, request)
        if self.bucket is None:
            raise NotFound("This gateway takes files of any size directly: POST /v1/files with the file.")
        await self.gate.refuse_unpaid(key)
        self._files()
        try:
            record = asked(await request.body(), key.account, int(self.attachments.clock()))
            await self._add(record)
        except InvalidRequest:
            self.gate.wasted(key, 0)
            raise
        return answer(await begun(self.bucket, record))

    async def _complete(
        self, request: Request, key: Key, files: Files, bucket: Bucket, pieces: AsyncIterator[bytes]
    ) -> Response:
        """Pass a file on that the client has put into the bucket, then delete it there."""
        async with completing(bucket, pieces, partial(self._record, key)) as (source, pending):
            about = wanted(source.fields, kind_of(source.head), _shape(request) is ANTHROPIC)
            record = await self._upload(request, key, files, source, about, pending)
        await emptied(bucket, record)
        return answer(_shape(request).file(record))

    async def list(self, request: Request) -> Response:
        key = await authenticate_for_files(self.gate, request)
        records = await _stored(self.store.files(key.account, int(self.attachments.clock())))
        return answer(_shape(request).page(records, request.query))

    async def retrieve(self, request: Request, file: str) -> Response:
        key = await authenticate_for_files(self.gate, request)
        return answer(_shape(request).file(await self._record(key, file)))

    async def content(self, request: Request, file: str) -> Response:
        """Return a file's content at the provider: the text of a document, the lines of a batch's output."""
        key = await authenticate_for_files(self.gate, request)
        record = await self._record(key, file)
        if _shape(request) is ANTHROPIC:
            raise NotDownloadable(
                f"File {record.id} is not downloadable: it was uploaded, not made by a tool."
            )
        await self.gate.require_credit(key)
        files = self._files()
        if record.state != "ready":
            raise Conflict(f"File {record.id} has no content: its status is not processed.", param="file_id")
        async with AsyncExitStack() as opened:
            opened.enter_context(self.gate.places.held(key.account))
            token = self._token(record)
            try:
                content = files.content(token, record.upstream)
                chunks = await opened.enter_async_context(content)
            except UpstreamFailure as failure:
                self._learn(token, failure)
                raise _shown(failure, request, record.id) from failure
            headers = [("content-type", "text/plain; charset=utf-8")]
            return Response(200, headers, self._pieces(chunks), close=opened.pop_all().aclose)
        raise AssertionError  # the stack swallows nothing

    async def delete(self, request: Request, file: str) -> Response:
        key = await authenticate_for_files(self.gate, request)
        record = await self._record(key, file)
        if not record.token:
            raise Conflict(
                f"Upload {record.id} was not completed. It ends by itself within an hour.", param="file_id"
            )
        gone = replace(record, state="deleting", expires=int(self.attachments.clock()))
        if not await _stored(self.store.change_file(record, gone, self.room)):
            raise Conflict(
                f"File {record.id} was changed meanwhile. Send the request again.", param="file_id"
            )
        if record.upstream and await self.gate.has_credit(key):
            with self.gate.places.held(key.account):
                await self._remove(gone)
        return answer(_shape(request).deleted(record.id))

    async def _upload(
        self,
        request: Request,
        key: Key,
        files: Files,
        form: Source,
        about: Wanted,
        pending: FileRecord | None = None,
    ) -> FileRecord:
        """The record of a new file. Whatever happens, what the provider may have is in a record. `pending` is
        the one that it replaces, and that returns if the provider surely has no such file."""
        try:
            lease = await self.upstream().tokens.lease(None, set())
        except UpstreamFailure as failure:
            raise _shown(failure, request) from failure
        failed: UpstreamFailure | None = None
        now = int(self.attachments.clock())
        record = FileRecord(
            pending.id if pending else file_id(now),
            key.account, lease.token.id, "kept", now, now + SWEPT_AFTER,
            filename=form.filename, size=_expected(request, form), media_type=form.type, purpose=about.word,
            uploaded_as=about.purpose,
        )  # fmt: skip
        try:
            await (self._claim(pending, record) if pending else self._add(record))
            async with aclosing(form.chunks()) as chunks:
                told = await files.upload(
                    lease.token, f"{record.id}-{form.filename}", about.purpose, chunks, form.whole
                )
            lease.answered()
            state = "failed" if told.failed else "ready"
            done = replace(
                record, upstream=told.id, size=form.size, state=state,  # type: ignore[arg-type]
                expires=about.expires(now), detail=told.detail if told.failed else "",
            )  # fmt: skip
            await self._finish(record, done)
            return done
        except UpstreamFailure as failure:
            failed = failure
            await self._abandon(record, failure.cause in REFUSED or not form.ended, pending)
            if failure.cause == "room" and await self.attachments.cleaner.make_room(files, lease.token):
                raise Unavailable(ROOM_NOW, retry_after=1, cause="upstream_room") from failure
            raise _shown(failure, request) from failure
        except BaseException:
            await asyncio.shield(self._abandon(record, not form.ended, pending))
            raise
        finally:
            lease.end(failed)

    async def _add(self, record: FileRecord) -> None:
        try:
            await _stored(self.store.add_file(record, self.room))
        except NoRoom as full:
            raise self._full(full) from full

    async def _claim(self, pending: FileRecord, record: FileRecord) -> None:
        """Only one of several requests may complete an upload."""
        try:
            claimed = await _stored(self.store.change_file(pending, record, self.room))
        except NoRoom as full:
            raise self._full(full) from full
        if not claimed:
            raise Conflict(f"Upload {record.id} is being completed by another request.", param="upload")

    async def _finish(self, record: FileRecord, done: FileRecord) -> None:
        """The file is at the provider; it is deleted there unless its record says so."""
        try:
            kept = await _stored(self.store.change_file(record, done, self.room))
            refusal: GatewayError = NotFound(f"File {done.id} was deleted while it was uploaded.")
        except NoRoom as full:
            kept, refusal = False, self._full(full)
        if not kept:
            await asyncio.shield(self._remove(replace(done, expires=record.expires)))
            raise refusal

    def _full(self, full: NoRoom) -> InvalidRequest:
        if full.files >= self.room.files:
            return InvalidRequest(
                "The number of files you have uploaded exceeded the max file count"
                f" {self.room.files}, please delete previous uploaded files"
            )
        return InvalidRequest(
            f"The files of this account have {full.size} bytes and may have {self.room.size} in all,"
            " please delete previous uploaded files",
            param="file",
        )

    async def _abandon(self, record: FileRecord, absent: bool, pending: FileRecord | None) -> None:
        """An upload failed. If the provider surely has no such file, its record goes, or is `pending` again;
        else it is due, and the sweep looks for the file by its name."""
        with suppress(StoreDown):  # the record's own expiry does the same later
            if absent and pending:
                await self.store.change_file(record, pending, self.room)
            elif absent:
                await self.store.remove_file(record)
            else:
                due = replace(record, expires=int(self.attachments.clock()))
                await self.store.change_file(record, due, self.room)

    async def _remove(self, record: FileRecord) -> None:
        """At the provider, then the record. What fails is left to the sweep."""
        provider = self.upstream().provider
        token = next((each for each in self.upstream().tokens.all() if each.id == record.token), None)
        if token is None or not isinstance(provider, KeepsFiles):
            return
        try:
            async with asyncio.timeout(self.patience):
                await provider.files.delete(token, record.upstream)
            await self.store.remove_file(record)
        except (UpstreamFailure, StoreDown, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, UpstreamFailure | StoreDown) else "timeout"
            emit("file_left", logging.WARNING, file=record.id, cause=cause)

    async def _record(self, key: Key, id: str) -> FileRecord:
        """Raises NotFound, also for the file of another account."""
        record = await _stored(self.store.file(key.account, id, int(self.attachments.clock())))
        if record is None:
            raise NotFound(f"There is no file {id[:80]}.", param="file_id")
        return record

    def _files(self) -> Files:
        provider = self.upstream().provider
        if not isinstance(provider, KeepsFiles) or not self.room.files:
            raise NotFound("This gateway keeps no files.", cause="no_files")
        return provider.files

    def _token(self, record: FileRecord) -> Token:
        for token in self.upstream().tokens.all():
            if token.id == record.token:
                return token
        raise Conflict(
            f"File {record.id} is in an upstream account that this gateway no longer uses. Upload it again.",
            param="file_id",
            cause="token_gone",
        )

    def _learn(self, token: Token, failure: UpstreamFailure) -> None:
        if failure.cause == "authentication":
            self.upstream().tokens.learn(token, "", failure)

    async def _pieces(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        while True:
            async with asyncio.timeout(self.patience):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk


def _shape(request: Request) -> Shape:
    return ANTHROPIC if errors.dialect_of(request) == "anthropic" else OPENAI


def _expected(request: Request, form: Source) -> int:
    """Bytes that a file has at most, as far as they are known before it has come; so that several uploads at
    once cannot share one room."""
    length = request.headers.get("content-length")
    if form.whole is not None:
        return form.whole
    return min(int(length), MOST_BYTES) if length.isdigit() else 0


async def _stored(step: Awaitable[T]) -> T:
    """Raises Unavailable where the store is down."""
    try:
        return await step
    except StoreDown as exc:
        emit(exc.cause, logging.ERROR, step="files", detail=str(exc))
        raise Unavailable(
            "The gateway cannot read its files at present.", retry_after=1, cause=exc.cause
        ) from exc


def _shown(failure: UpstreamFailure, request: Request, id: str = "") -> GatewayError:
    if failure.cause == "model":  # the platform's 404
        return NotFound(f"The upstream does not have the file {id}.", cause="upstream_file")
    return failure.shown(request=request.id)
