"""The attachments of one turn: their results, and their uploads at the provider."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING

from kimi_gateway.accounts.files import FileRecord
from kimi_gateway.catalog.models import IMAGE_TYPES, VIDEO_TYPES
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import Conflict, GatewayError, NotFound
from kimi_gateway.files import texts
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.budget import Share
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.moving import Moved
from kimi_gateway.files.reading import Reader, reading, too_large, whole, wrong
from kimi_gateway.files.shared import Found, Shared
from kimi_gateway.files.uses import A, Medium, medium_of, other_use
from kimi_gateway.pivot.attachments import (
    Attachment,
    DocumentText,
    FileId,
    Inline,
    MediaUrl,
    PlainText,
    Resolved,
)
from kimi_gateway.pivot.signatures import LOOKED_AT, TEXT, FileType, of
from kimi_gateway.providers.failures import AGAIN, OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.files import Files, KeepsFiles, Purpose, TakesDocuments
from kimi_gateway.providers.provider import Token, Upstream

if TYPE_CHECKING:
    from kimi_gateway.net.fetch.fetcher import Fetcher

TRIES = 3  # uploads of one attachment, each with a token that was not tried
HELD = 2**20  # bytes of a document that are read before its upload begins
NO_TEXT = "the document has no text; it may be a scan. Send its pages as pictures"
LEARNED = ("authentication", "quota")  # failures of an upload that say something of the token's chats
_SENDABLE = {"image": IMAGE_TYPES, "video": VIDEO_TYPES}


class _Again(Exception):
    """Another token may accept the upload; the source must be read again."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@dataclass(slots=True)
class Resolving:
    """`kept` are the account's files that the request names, by id. Uploads use no token of `without` (ids).
    `pinned`: kept files have bound the turn. `end` deletes the uploads."""

    account: str
    upstream: Upstream
    texts: texts.Texts
    cleaner: Cleaner
    fetcher: Callable[[], Fetcher]
    bounds: Bounds
    local: bool
    kept: Mapping[str, FileRecord]
    share: Share
    without: frozenset[str] = frozenset()
    shared: Shared | None = None
    pinned: bool = False
    token_id: str | None = None
    _uploaded: dict[str, FileRecord] = field(default_factory=dict)
    _using: list[str] = field(default_factory=list)
    _made_room: bool = False
    _binding: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def files(self) -> Files | None:
        provider = self.upstream.provider
        return provider.files if isinstance(provider, KeepsFiles) else None

    def bind(self, attachments: Sequence[Attachment]) -> None:
        """Kept pictures and videos bind the turn to their token. Raises Conflict if there are several."""
        for each in attachments:
            record = self.kept.get(each.source.id) if isinstance(each.source, FileId) else None
            if record is None or medium_of(record) is None:
                continue
            self._token(each, record)
            if self.token_id not in (None, record.token):
                raise Conflict(
                    f"{each.field}: this file and another one of the request are in different accounts of the"
                    " upstream; upload them again, or send their bytes",
                    param=each.field,
                )
            self.token_id, self.pinned = record.token, True

    def end(self) -> None:
        self.share.end()
        self.cleaner.release(self._using)
        for record in self._uploaded.values():
            self.cleaner.delete_later(record)
        self._uploaded.clear()

    async def resolved(self, attachment: Attachment) -> Resolved:
        """Raises GatewayError."""
        source = attachment.source
        if isinstance(source, PlainText):
            return DocumentText(attachment.filename, source.text)
        if isinstance(source, FileId):
            return await self._of_kept(attachment, source.id)
        tried = set(self.without)
        while True:
            try:
                async with reading(attachment, self.bounds, self.fetcher, self.share) as reader:
                    return await self._read(attachment, reader, tried)
            except _Again as again:
                if len(tried - self.without) >= TRIES or not await self.upstream.tokens.another(tried, ""):
                    raise _shown(attachment, again.failure) from again.failure

    async def _read(self, attachment: Attachment, reader: Reader, tried: set[str]) -> Resolved:
        head = await reader.fill(LOOKED_AT)
        if not head:
            raise wrong(attachment, "the file is empty")
        type = of(head)
        if type.kind in ("image", "video") and attachment.kind in (type.kind, "any"):
            return await self._medium(attachment, reader, type, tried)
        if attachment.kind in ("image", "video"):
            raise wrong(attachment, f"the content is {type.media_type}, not {A[attachment.kind]}")
        if type.kind != "document":
            advice = "; send it as a picture" if type.kind == "image" else ""
            raise wrong(attachment, f"files of type {type.media_type} cannot be read as documents{advice}")
        provider = self.upstream.provider
        if isinstance(provider, TakesDocuments) and not texts.plain(type, await reader.fill(HELD)):
            return await whole(attachment, reader, type, provider.largest_document)
        text = await self._document(attachment, reader, type, tried)
        return DocumentText(attachment.filename or reader.name, text)

    async def _medium(
        self, attachment: Attachment, reader: Reader, type: FileType, tried: set[str]
    ) -> MediaUrl:
        medium: Medium = "image" if type.kind == "image" else "video"
        if type.media_type not in _SENDABLE[medium]:
            names = ", ".join(sorted(_SENDABLE[medium]))
            raise wrong(attachment, f"{type.media_type} is not supported; use one of {names}")
        if self.files is None and isinstance(attachment.source, Inline):  # it can go as it came
            return MediaUrl(f"data:{type.media_type};base64,{attachment.source.data}", medium)
        if medium == "image" and (reader.size is None or reader.size <= self.bounds.inline):
            data = await reader.fill(self.bounds.inline + 1)
            if len(data) <= self.bounds.inline:
                return MediaUrl(f"data:{type.media_type};base64,{base64.b64encode(data).decode()}")
            del data
        if medium == "image" and self.files is None:
            raise too_large(attachment, self.bounds.inline)
        async with self._binding:  # media of one turn share a token
            upload = partial(self._upload, attachment, reader, type, medium, tried, self.token_id)
            if self.shared is not None and self.files is not None:
                given = medium, reader, self.files, self.token_id, self.without, upload
                record = await self.shared.upload(*given, self._uploaded)
            else:
                record = await upload()
            self.token_id = record.token
            self._using.append(record.id)
            self.cleaner.using[record.id] += 1
        return MediaUrl(f"ms://{record.upstream}", medium)

    async def _document(self, attachment: Attachment, reader: Reader, type: FileType, tried: set[str]) -> str:
        data = await reader.fill(HELD)
        if texts.plain(type, data) or (type is TEXT and self.files is None):
            data = await reader.fill(self.bounds.text + 1)
            if len(data) > self.bounds.text:
                raise too_large(attachment, self.bounds.text)
            return texts.decoded(data)
        if digest := await reader.known_digest():
            known = await self.texts.look(self.account, digest)
            if known is not None:
                return known
        if self.local or self.files is None:
            return await self._local(attachment, reader, type)
        del data
        digests: list[str] = []

        async def ended(digest: str) -> None:
            digests.append(digest)
            known = await self.texts.look(self.account, digest)
            if known is not None:
                raise texts.Known(known)

        try:
            record = await self._upload(attachment, reader, type, "file-extract", tried, None, ended)
        except texts.Known as known:
            return known.text
        try:
            text = await self._extracted(attachment, record)
        finally:
            del self._uploaded[record.id]
            self.cleaner.delete_later(record)
        await self.texts.keep(self.account, digests[0], text)
        return text

    async def _extracted(self, attachment: Attachment, record: FileRecord) -> str:
        files = self.files
        if files is None:
            raise wrong(attachment, "the file is kept at another upstream; send its content")
        try:
            text = await files.text(self._token(attachment, record), record.upstream)
        except UpstreamFailure as failure:
            raise _shown(attachment, failure) from failure
        if not text.strip():
            raise wrong(attachment, NO_TEXT)
        return text

    async def _local(self, attachment: Attachment, reader: Reader, type: FileType) -> str:
        if type.extension != "pdf":
            raise wrong(attachment, f"this gateway reads no documents of type {type.media_type}")
        data = await reader.fill(self.bounds.size)
        try:
            text = await asyncio.to_thread(texts.of_pdf, data)
        except texts.NotExtracted as exc:
            raise wrong(attachment, str(exc)) from exc
        if not text.strip():
            raise wrong(attachment, NO_TEXT)
        if digest := await reader.known_digest():
            await self.texts.keep(self.account, digest, text)
        return text

    async def _of_kept(self, attachment: Attachment, id: str) -> Resolved:
        record = self.kept.get(id)
        if record is None:
            raise NotFound(f"{attachment.field}: there is no file {id[:80]!r}", param=attachment.field)
        medium = medium_of(record)
        if medium is not None and attachment.kind in (medium, "any"):
            return MediaUrl(f"ms://{record.upstream}", medium)
        if attachment.kind in ("image", "video") or medium is not None:
            raise wrong(attachment, other_use(record, attachment))
        text = await self.texts.look(self.account, record.id)
        if text is None:
            text = await self._extracted(attachment, record)
            await self.texts.keep(self.account, record.id, text)
        return DocumentText(attachment.filename or record.filename or None, text)

    async def _upload(
        self,
        attachment: Attachment,
        reader: Reader,
        type: FileType,
        purpose: Purpose,
        tried: set[str],
        bound: str | None,
        ended: Callable[[str], Awaitable[None]] | None = None,
        shared: bool = False,
    ) -> FileRecord:
        files = self.files
        if files is None:
            raise wrong(attachment, "this upstream takes no files")
        try:
            lease = await self.upstream.tokens.lease(None, tried, bound)
        except UpstreamFailure as failure:
            if bound is not None and await self._may_move(bound, failure):
                raise Moved(bound) from failure
            raise _shown(attachment, failure) from failure
        failed: UpstreamFailure | None = None
        try:
            token = lease.token
            tried.add(token.id)
            record = await self.cleaner.begin(self.account, token, purpose, type.media_type, files, shared)
            chunks = reader.stream(ended)
            name = f"{record.id}.{_extension(attachment, reader, type)}"
            try:
                file = await files.upload(token, name, purpose, chunks, reader.size)
            except UpstreamFailure as failure:
                failed = failure if failure.cause in LEARNED else None
                self._not_uploaded(record, failure)
                if bound is None and failure.cause in OTHER_TOKEN | AGAIN:
                    raise _Again(failure) from failure
                if bound is not None and await self._may_move(bound, failure):
                    raise Moved(bound) from failure
                if failure.cause == "room" and await self._room(files, token, tried, bound):
                    raise _Again(failure) from failure
                raise _shown(attachment, failure) from failure
            except (GatewayError, texts.Known, Found):  # of the source: the body was never complete
                self.cleaner.forget_later(record)
                raise
            except BaseException:
                self.cleaner.delete_later(record)
                raise
            lease.answered()
            record = await self.cleaner.uploaded(record, file)
            self._uploaded[record.id] = record
            if file.failed:
                raise wrong(attachment, f"the file could not be read. {file.detail}".strip())
            return record
        finally:
            lease.end(failed)

    async def _may_move(self, bound: str, failure: UpstreamFailure) -> bool:
        causes = OTHER_TOKEN | {"bound", "room"} if not self.pinned else ()
        return failure.cause in causes and await self.upstream.tokens.another({bound, *self.without}, "")

    async def _room(self, files: Files, token: Token, tried: set[str], bound: str | None) -> bool:
        """Whether another try can succeed: with another token, else with this one after making room, once."""
        if bound is None and await self.upstream.tokens.another(tried, ""):
            return True
        if self._made_room or not await self.cleaner.make_room(files, token):
            return False
        self._made_room = True
        tried.discard(token.id)
        return True

    def _not_uploaded(self, record: FileRecord, failure: UpstreamFailure) -> None:
        """After a refusal there is no file; after a lost answer there may be one."""
        if failure.quoted or failure.cause in OTHER_TOKEN or failure.cause == "connect":
            self.cleaner.forget_later(record)
        else:
            self.cleaner.delete_later(record)

    def _token(self, attachment: Attachment, record: FileRecord) -> Token:
        """Raises Conflict."""
        token = next((token for token in self.upstream.tokens.all() if token.id == record.token), None)
        if token is None:
            raise Conflict(
                f"{attachment.field}: the upstream account with the file is not in use any more;"
                " upload it again",
                param=attachment.field,
            )
        return token


def _extension(attachment: Attachment, reader: Reader, type: FileType) -> str:
    """The content's. Of texts only HTML is uploaded. Old office files are alike, so there the client's."""
    if type is TEXT:
        return "html"
    said = (attachment.filename or reader.name or "").rpartition(".")[2].lower()
    return said if type.extension == "doc" and said in ("xls", "ppt") else type.extension


def _shown(attachment: Attachment, failure: UpstreamFailure) -> GatewayError:
    """The vendor's refusal of a file is the client's matter and names the field."""
    if failure.cause == "invalid":
        detail = failure.detail if failure.quoted else "the upstream refused the file"
        return wrong(attachment, detail)
    if failure.cause in ("bound", "authentication", "quota", "permission") and isinstance(
        attachment.source, FileId
    ):
        return Conflict(
            f"{attachment.field}: the upstream account with the file is not available now; upload it again",
            param=attachment.field,
        )
    return failure.shown()
