"""Uploads of pictures and videos that later turns of their account use again.

A turn that sends the same content gets the same `ms://` id, so the conversation's beginning stays as it was
and the provider's prefix cache serves it. The records are the only memory of these uploads: an upload ends
with its record, and a sweep deletes both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.accounts.files import FileRecord, FileStore
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.reading import Reader
from kimi_gateway.observe import emit
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.files import Files
from kimi_gateway.providers.provider import Token, Upstream

Ended = Callable[[str], Awaitable[None]]
Upload = Callable[[Ended | None, bool], Awaitable[FileRecord]]

LOOKED_FOR_EVERY = 600  # seconds after which the provider is asked again whether it has a file
PATIENCE = 5.0  # seconds for that question


class Found(Exception):
    """The content was uploaded before, so this upload is broken off."""

    def __init__(self, record: FileRecord) -> None:
        super().__init__("the content was uploaded before")
        self.record = record


@dataclass(frozen=True, slots=True)
class Sharing:
    """The sharing of uploads by all turns. An upload is kept for `keep` seconds, and no turn begins to use it
    in the last `spare` ones, so it outlives each turn. `seen`: when the provider had a file, by its id."""

    store: FileStore
    cleaner: Cleaner
    clock: Callable[[], float]
    keep: int
    spare: float
    seen: BoundedDict[float]

    def of(self, account: str, upstream: Upstream) -> Shared:
        return Shared(self, account, upstream)


class Shared:
    """The shared uploads of one account, as one turn uses them."""

    def __init__(self, sharing: Sharing, account: str, upstream: Upstream) -> None:
        self._of = sharing
        self._account = account
        self._upstream = upstream
        self._records: list[FileRecord] | None = None

    async def upload(
        self,
        purpose: str,
        reader: Reader,
        files: Files,
        only: str | None,
        without: frozenset[str],
        upload: Upload,
        own: dict[str, FileRecord],
    ) -> FileRecord:
        """An earlier upload of the content at a token that may serve the turn, else the result of `upload`.
        `only`: the id of the one token that will do. `without`: those that will not. `own`: the uploads that
        end with the turn; one that stays is taken out."""
        name = ""

        async def known(digest: str) -> None:
            nonlocal name
            name = f"{purpose} {digest}"
            for record in reversed(await self._live()):
                if record.filename != name or record.token in without or only not in (None, record.token):
                    continue
                if await self._serves(record, files, without):
                    raise Found(record)

        try:
            # Reading everything before the upload pays only where there is something to find.
            some = any(record.filename.startswith(f"{purpose} ") for record in await self._live())
            digest = await reader.known_digest() if some else None
            if digest is not None:
                await known(digest)
            record = await upload(None if digest is not None else known, True)
        except Found as found:
            return found.record
        now = int(self._of.clock())
        kept = await self._of.cleaner.share(record, name, now + self._of.keep)
        if kept is None:
            return record
        own.pop(kept.id, None)
        self._of.seen[kept.upstream] = now
        (await self._live()).append(kept)
        return kept

    async def _live(self) -> list[FileRecord]:
        """A store that is down knows none; then the upload itself fails."""
        if self._records is None:
            now = int(self._of.clock())
            try:
                found = await self._of.store.shared_files(self._account, now)
            except StoreDown as exc:
                emit(exc.cause, step="shared_files")
                return []
            self._records = [
                each for each in found if each.state == "ready" and each.expires - now > self._of.spare
            ]
        return self._records

    async def _serves(self, record: FileRecord, files: Files, without: frozenset[str]) -> bool:
        """Whether its token is in use, available unless no other one is, and still has the file."""
        tokens = self._upstream.tokens
        token = next((each for each in tokens.all() if each.id == record.token), None)
        if token is None:
            return False
        others = {each.id for each in tokens.all() if each is not token}
        if not await tokens.another(others, "") and await tokens.another({token.id, *without}, ""):
            return False
        if await self._has(token, record, files):
            return True
        self._of.cleaner.delete_later(record)
        return False

    async def _has(self, token: Token, record: FileRecord, files: Files) -> bool:
        """Somebody may have deleted it at the provider. No answer says nothing."""
        now = self._of.clock()
        if now - self._of.seen.get(record.upstream, -LOOKED_FOR_EVERY) < LOOKED_FOR_EVERY:
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                found = await files.info(token, record.upstream)
        except (UpstreamFailure, TimeoutError):
            return True
        if found is not None:
            self._of.seen[record.upstream] = now
        return found is not None
