"""Deletes a turn's uploads at the provider, also after a crash.

A record is written before the upload, so any process can find the file: by the provider's id, or by its name
there, which begins with the record's id. Deletion runs behind the answer and is repeated; a sweep deletes the
rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.accounts.files import FileRecord, FileStore, NoRoom, Room, file_id
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import NEVER
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError
from kimi_gateway.observe import emit
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.files import Files, KeepsFiles, UpstreamFile
from kimi_gateway.providers.provider import Token, Upstream

PAUSES = (0.0, 0.5, 2.0)  # seconds before each try of a deletion
POSTPONED = 60  # seconds until a sweep tries again
LOST = 120  # seconds after which an upload whose answer was lost is looked for once more
UNREACHABLE = 30 * 86_400  # seconds of failing after which a file, of a token that is gone, is forgotten
AT_ONCE = 100  # records of one sweep
REACHED = 10_000  # files of this process that are not deleted yet
SWEPT_EVERY = 600  # seconds between the sweeps behind turns, where there is no heartbeat
LOOKED_THROUGH = 1_000  # records of all accounts, for uploads that can make room
EVICTED = 10  # uploads that make room at one time
_ROOM = Room(20, 2**29)  # for the shared files of an account; passing ones need none


@dataclass(frozen=True, slots=True)
class Swept:
    """Files deleted, and files that could not be deleted now."""

    deleted: int = 0
    left: int = 0


def first_to_go(records: list[FileRecord]) -> list[FileRecord]:
    """Shared uploads in the order in which they make room: of the accounts that have most, the oldest."""
    of: dict[str, list[FileRecord]] = {}
    for record in sorted(records, key=lambda each: (each.created, each.id), reverse=True):
        of.setdefault(record.account, []).append(record)
    ranked = [(-rank, each) for own in of.values() for rank, each in enumerate(own)]
    return [each for _, each in sorted(ranked, key=lambda pair: (pair[0], pair[1].created, pair[1].id))]


class Cleaner:
    """`lease`: seconds for which a turn's files are kept from a sweep, unless `renew` extends it."""

    def __init__(
        self,
        store: FileStore,
        upstream: Callable[[], Upstream],
        clock: Callable[[], float],
        lease: float = 660,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.uploads = 0
        self.deletions = 0
        self.busy: set[asyncio.Task[None]] = set()
        self.using = Counter[str]()  # turns of this process that use a shared upload, by its record
        self.others: dict[str, Callable[[FileRecord], Awaitable[int]]] = {}  # by purpose
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._lease = lease
        self._sleep = sleep
        self._held: dict[str, FileRecord] = {}
        self._reached = BoundedDict[tuple[Files, Token]](REACHED)  # by record; tokens stay in memory only
        self._swept = clock()
        self._making_room = asyncio.Lock()
        self._made_room: dict[str, float] = {}  # when, by the token's id

    async def begin(
        self,
        account: str,
        token: Token,
        purpose: str,
        media_type: str,
        files: Files | None = None,
        shared: bool = False,
        detail: str = "",
    ) -> FileRecord:
        """The record of an upload that may start now. `files`: the provider's, with which this process can
        delete it although its token is a guest's. `shared`: it may become one, if there is room.
        Raises StoreDown."""
        now = int(self._clock())
        record = FileRecord(
            file_id(now), account, token.id, "passing", now, now + int(self._lease),
            purpose=purpose, media_type=media_type, detail=detail,
        )  # fmt: skip
        try:
            added = replace(record, kind="shared") if shared else record
            await self._store.add_file(added, _ROOM)
        except NoRoom:
            added = record
            await self._store.add_file(added, _ROOM)
        record = added
        self._held[record.id] = record
        if files is not None:
            self._reached[record.id] = files, token
        return record

    async def uploaded(self, record: FileRecord, file: UpstreamFile) -> FileRecord:
        """The record with the provider's id. A store that is down does not end the turn: the sweep would find
        the file by its name."""
        self.uploads += 1
        ready = await self.known(record, replace(record, upstream=file.id, state="ready"))
        return replace(ready, size=file.size)

    async def known(self, record: FileRecord, ready: FileRecord) -> FileRecord:
        """The record with facts that the provider has given."""
        current = self._held.get(record.id, record)  # `renew` may have extended it
        ready = replace(ready, expires=current.expires)
        try:
            await self._store.change_file(current, ready, _ROOM)
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="file_uploaded")
        else:
            self._held[record.id] = ready
        return ready

    async def share(self, record: FileRecord, name: str, until: int) -> FileRecord | None:
        """Keep an upload of this turn for later ones. None if it stays the turn's own: for want of room, or
        because the store failed."""
        held = self._held.get(record.id)
        if record.kind != "shared" or held is None:
            return None
        kept = replace(record, filename=name, expires=until)
        try:
            changed = await self._store.change_file(held, kept, _ROOM)
        except NoRoom:
            return None
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="file_shared")
            return None
        if not changed:
            return None
        self._held.pop(record.id, None)
        self._reached.pop(record.id, None)
        return kept

    def release(self, ids: list[str]) -> None:
        """A turn ends that used these uploads."""
        self.using -= Counter(ids)  # drops what is 0

    async def make_room(self, files: Files, token: Token) -> bool:
        """The account of this token is full: delete uploads that only make later turns cheaper. The accounts
        with most of them lose their oldest; `kept` files, and uploads that this process uses now, stay.
        Returns whether there is room now."""
        async with self._making_room:
            now = int(self._clock())
            if self._made_room.get(token.id, -1.0) >= now:  # for another request of this second
                return True
            try:
                made = await self._evicted(files, token, now)
            except StoreDown as exc:
                emit(exc.cause, logging.WARNING, step="files_evicted")
                return False
            if made:
                self._made_room[token.id] = now
            emit("files_evicted", logging.WARNING, token=token.id, deleted=made)
            return made > 0

    async def _evicted(self, files: Files, token: Token, now: int) -> int:
        due = await self._store.due_files(NEVER - 1, LOOKED_THROUGH)
        shared = [each for each in due if each.kind == "shared" and each.token == token.id and each.upstream]
        idle = [each for each in shared if each.state == "ready" and each.id not in self._held]
        made = 0
        for record in first_to_go([each for each in idle if not self.using[each.id]])[:EVICTED]:
            going = replace(record, state="deleting", expires=now)  # first, so that no turn begins to use it
            if not await self._store.change_file(record, going, _ROOM):
                continue
            try:
                await files.delete(token, record.upstream)
            except UpstreamFailure:
                continue  # the sweep does it
            self.deletions += 1
            made += 1
            await self._store.remove_file(going)
        return made

    def delete_later(self, record: FileRecord) -> None:
        """Delete the file and its record behind the answer, and from time to time what others left."""
        self._start(self._deleted(record))
        if self._clock() - self._swept >= SWEPT_EVERY:
            self._start(self._swept_quietly())

    def forget_later(self, record: FileRecord) -> None:
        """The provider has no such file."""
        self._start(self._forgotten(record))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def _deleted(self, record: FileRecord) -> None:
        for pause in PAUSES:
            await self._sleep(pause)
            try:
                count = await self._delete_upstream(record)
            except (UpstreamFailure, GatewayError) as exc:
                failure = str(exc)
            else:
                self.deletions += count if record.upstream and record.purpose not in self.others else 0
                await self._end(record, bool(count))
                return
        emit("file_left", logging.WARNING, file=record.id, token=record.token, detail=failure)
        await self._postpone(record, POSTPONED)

    async def _forgotten(self, record: FileRecord) -> None:
        await self._end(record, True)

    async def _end(self, record: FileRecord, found: bool) -> None:
        """An upload whose answer was lost may appear later, so it is looked for twice."""
        if not found and not record.upstream and record.state == "uploading":
            await self._postpone(record, LOST)
            return
        current = self._held.pop(record.id, record)
        self._reached.pop(record.id, None)
        try:
            await self._store.remove_file(current)
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="file_forgotten")  # the sweep does it, and finds no file
        if record.purpose in self.others:
            return
        left = self.uploads - self.deletions
        emit("files_deleted", uploads=self.uploads, deletions=self.deletions, left=left)

    async def _postpone(self, record: FileRecord, seconds: int) -> None:
        current = self._held.pop(record.id, record)
        now = int(self._clock())
        later = current.postponed(now + seconds, now)
        try:
            await self._store.change_file(current, later, _ROOM)
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="file_postponed")  # it is due at its old time

    async def _delete_upstream(self, record: FileRecord) -> int:
        """The number of files that are gone now. Raises UpstreamFailure."""
        if (other := self.others.get(record.purpose)) is not None:
            return await other(record)
        files, token = self._reach(record)
        if record.upstream:
            await files.delete(token, record.upstream)
            return 1  # one that is already gone counts, too
        named = [file for file in await files.all(token) if record.id in file.filename]
        return sum([await files.delete(token, file.id) for file in named])

    def _reach(self, record: FileRecord) -> tuple[Files, Token]:
        if record.id in self._reached:
            return self._reached[record.id]
        upstream = self._upstream()
        token = next((token for token in upstream.tokens.all() if token.id == record.token), None)
        if token is None or not isinstance(upstream.provider, KeepsFiles):
            raise UpstreamFailure("authentication", "the file's token is gone")
        return upstream.provider.files, token

    async def renew(self) -> None:
        """Extend the time of files in use. Raises StoreDown."""
        until = int(self._clock() + self._lease)
        for record in list(self._held.values()):
            later = replace(record, expires=until)
            if await self._store.change_file(record, later, _ROOM) and record.id in self._held:
                self._held[record.id] = later

    async def _swept_quietly(self) -> None:
        try:
            await self.sweep()
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="files_swept")

    async def sweep(self, most: int = AT_ONCE, abandoned: bool = False) -> Swept:
        """Delete what is due: files of processes that died, and kept files that ended. `abandoned`: no turn
        runs anywhere, so all passing files are due. Raises StoreDown."""
        self._swept = self._clock()
        now, deleted, left = int(self._swept), 0, 0
        for record in await self._store.due_files(NEVER - 1 if abandoned else now, most):
            if record.id in self._held or (record.kind == "kept" and record.expires > now):
                continue
            if not record.token:  # it never came to a provider
                await self._store.remove_file(record)
                continue
            try:
                count = await self._delete_upstream(record)
            except (UpstreamFailure, GatewayError) as exc:
                if now - record.failing_since(now) < UNREACHABLE:
                    left += 1
                    later = record.postponed(now + POSTPONED, now)
                    await self._store.change_file(record, later, _ROOM)
                    continue
                emit("file_unreachable", logging.WARNING, file=record.id, detail=str(exc))
                count = 0
            deleted += count
            if record.kind != "kept" and record.upstream and record.purpose not in self.others:
                self.deletions += 1
            if not count and not record.upstream and record.state == "uploading":
                later = replace(record, state="deleting", expires=now + LOST)
                await self._store.change_file(record, later, _ROOM)
            else:
                self._reached.pop(record.id, None)
                await self._store.remove_file(record)
        if deleted or left:
            counts = {"uploads": self.uploads, "deletions": self.deletions}
            emit("files_swept", deleted=deleted, left=left, **counts)
        return Swept(deleted, left)

    async def rest(self, seconds: float) -> None:
        """Wait for deletions that still run."""
        if self.busy:
            await asyncio.wait(set(self.busy), timeout=seconds)
