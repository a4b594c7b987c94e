"""Turns what a request attaches into what goes upstream: texts of documents, and addresses of media.

Small pictures go into the request. Larger ones, and videos, are uploaded; they bind the turn to the token
that has them. They are deleted when the turn ends, or shared with the account's later turns for a time.
Documents are uploaded, read and deleted at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from kimi_gateway.accounts.files import FileRecord, FileStore
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.budget import Memory, Share
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.moving import Moved
from kimi_gateway.files.parts import Resolving
from kimi_gateway.files.shared import Sharing
from kimi_gateway.files.texts import Texts
from kimi_gateway.pivot.attachments import (
    Attachment,
    DocumentText,
    FileId,
    MediaUrl,
    Resolved,
    Results,
    unreadable,
)
from kimi_gateway.providers.provider import Upstream

if TYPE_CHECKING:
    from kimi_gateway.net.fetch.fetcher import Fetcher

MOST_HELD = 256 * 2**20  # bytes of attachments that a process has in memory
AT_ONCE = 4  # attachments of one request that are read at the same time


@dataclass(frozen=True, slots=True)
class Resolution:
    """`results` are in the order of the attachments. `token` is the id of the token that the turn is bound
    to, `movable` whether that is because of uploads only."""

    results: Results
    token: str | None
    movable: bool


class FileResolver:
    """Implements `pivot.attachments.Resolver`. `local`: documents are read here where that is possible."""

    def __init__(
        self,
        store: FileStore,
        upstream: Callable[[], Upstream],
        texts: Texts,
        cleaner: Cleaner,
        fetcher: Callable[[], Fetcher],
        clock: Callable[[], float],
        bounds: Bounds | None = None,
        local: bool = False,
        memory: Memory | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._texts = texts
        self._cleaner = cleaner
        self._fetcher = fetcher
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._local = local
        self._memory = memory or Memory(MOST_HELD)
        self._sharing = sharing

    @asynccontextmanager
    async def resolve(
        self, account: str, attachments: Sequence[Attachment], without: frozenset[str] = frozenset()
    ) -> AsyncIterator[Resolution]:
        """Resolve attachments. Uploads are deleted after the context. Raises GatewayError naming the field,
        StoreDown, and Unavailable or RateLimited if the upstream fails."""
        if len(attachments) > self._bounds.count:
            most = self._bounds.count
            field = attachments[most].field
            raise InvalidRequest(
                f"{field}: a request may have at most {most} attachments, not {len(attachments)}",
                param=field,
            )
        kept = await self._kept(account, attachments)
        tried, wanted = set(without), _distinct(attachments)
        while True:
            parts = self._resolving(account, kept, tried)
            try:
                parts.bind(attachments)
                results = await _together([partial(self._one, parts, each) for each in wanted])
                break
            except Moved as moved:  # another token takes all uploads
                tried.add(moved.token)
                parts.end()
            except BaseException:
                parts.end()
                raise
        try:
            by_source = dict(zip(map(_key, wanted), results, strict=True))
            movable = parts.token_id is not None and not parts.pinned
            yield Resolution([by_source[_key(each)] for each in attachments], parts.token_id, movable)
        finally:
            parts.end()

    def _resolving(self, account: str, kept: dict[str, FileRecord], without: set[str]) -> Resolving:
        upstream = self._upstream()
        return Resolving(
            account,
            upstream,
            self._texts,
            self._cleaner,
            self._fetcher,
            self._bounds,
            self._local,
            kept,
            Share(self._memory, account, self._bounds.read, self._bounds.held),
            frozenset(without),
            None if self._sharing is None else self._sharing.of(account, upstream),
        )

    async def _one(self, parts: Resolving, attachment: Attachment) -> Resolved:
        try:
            resolved = await parts.resolved(attachment)
            parts.share.hold(attachment, _size(resolved))
            return resolved
        except GatewayError as error:
            return unreadable(attachment, error)

    async def _kept(self, account: str, attachments: Sequence[Attachment]) -> dict[str, FileRecord]:
        """The account's files that are named, by id. Raises NotFound and Conflict."""
        found: dict[str, FileRecord] = {}
        now = int(self._clock())
        for each in attachments:
            if not isinstance(each.source, FileId) or each.source.id in found:
                continue
            record = await self._store.file(account, each.source.id, now)
            if error := _unusable(each, each.source.id, record):
                if not each.told:
                    raise error
            elif record is not None:
                found[each.source.id] = record
        return found


def _size(resolved: Resolved) -> int:
    """Bytes, about."""
    if isinstance(resolved, MediaUrl):
        return len(resolved.url)
    return len(resolved.text) if isinstance(resolved, DocumentText) else 0


def _unusable(attachment: Attachment, id: str, record: FileRecord | None) -> GatewayError | None:
    field = attachment.field
    if record is None:
        return NotFound(f"{field}: there is no file {id[:80]!r}", param=field)
    if record.state == "failed":
        return InvalidRequest(f"{field}: the file could not be read. {record.detail}".strip(), param=field)
    if record.state != "ready":
        return Conflict(f"{field}: the upload of the file is not complete", param=field)
    return None


def _key(attachment: Attachment) -> tuple[object, ...]:
    """The same for attachments that become the same."""
    return attachment.source, attachment.kind, attachment.told, attachment.filename


def _distinct(attachments: Sequence[Attachment]) -> list[Attachment]:
    first: dict[tuple[object, ...], Attachment] = {}
    for each in attachments:
        first.setdefault(_key(each), each)
    return list(first.values())


async def _together(steps: Sequence[Callable[[], Awaitable[Resolved]]]) -> list[Resolved]:
    """Results in order, AT_ONCE steps at a time. The first error ends the other steps."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(step: Callable[[], Awaitable[Resolved]]) -> Resolved:
        async with places:
            return await step()

    tasks = [asyncio.create_task(placed(step)) for step in steps]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
