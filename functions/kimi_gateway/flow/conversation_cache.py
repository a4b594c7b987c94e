"""The gateway's hand on what is kept for later requests: not waited for long, and no reason to fail, but for
requests that name it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import Unavailable
from kimi_gateway.observe import emit, log
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.providers.moonshot import reasoning
from kimi_gateway.providers.moonshot.reasoning import MissingReasoning
from kimi_gateway.storage.cache import Cache

KEPT = 24 * 3600  # seconds
RENEWED = 64  # entries that one request renews at most
_MARK, _TIME = b"\x01", 6  # a stamp: the mark, and bytes of a unix second
TOGETHER = 100  # entries that are read at once for a request that names them
MOST_READ = 8 * 2**20  # bytes after which reading ends; twice of what a request may refer to, unpacked
PATIENCE = 2.0  # seconds that a request or the end of an answer waits for the store


class ConversationCache:
    """`keeps`: whether anything is kept at all; else nothing is found either. `patience`: seconds for
    reading, and as many for writing."""

    def __init__(
        self, replay: Cache, clock: Callable[[], float], keeps: bool = True, patience: float = PATIENCE
    ) -> None:
        self.keeps = keeps
        self._patience = patience
        self._replay = replay
        self._clock = clock

    async def put_back(
        self, account: str, body: dict[str, Any], missing: Sequence[MissingReasoning], model: Model
    ) -> int:
        """The reasoning that the messages lost, as far as it is known. The number of characters added."""
        found: dict[int, str] = {}
        again: dict[str, bytes] = {}
        if self.keeps:
            try:
                async with asyncio.timeout(self._patience):
                    found = await self._found(account, missing, again)
            except (StoreDown, TimeoutError) as exc:
                emit("replay_down", logging.WARNING, step="recall", account=account, detail=str(exc))
            await self._keep_again(account, again)
        return reasoning.put_back(body, missing, found, model.replay)

    async def _found(
        self, account: str, missing: Sequence[MissingReasoning], again: dict[str, bytes]
    ) -> dict[int, str]:
        """A long history is read page by page; a page that is not there yet is made from its entries. What is
        to be written is added to `again`."""
        pages, rest = reasoning.pages(missing)
        wanted = [*(page.name for page in pages), *reasoning.names(rest)]
        known = await self._look(account, wanted, again) if wanted else {}
        found = reasoning.thoughts(rest, known)
        unwritten = [page for page in pages if page.name not in known]
        for page in pages:
            if page.name in known:
                found |= reasoning.read_page(page, known[page.name])
        if unwritten:
            members = [each for page in unwritten for each in page.members]
            found |= reasoning.thoughts(members, await self._look(account, reasoning.names(members), again))
            entries = {page.name: reasoning.page_of(page, found) for page in unwritten}
            again |= {name: entry for name, entry in entries.items() if entry}
        return found

    async def _look(
        self, account: str, names: Sequence[str], again: dict[str, bytes] | None
    ) -> dict[str, bytes]:
        """Entries by name. Those with less than half of their life left are added to `again`, up to RENEWED
        in all, so that a conversation that goes on loses nothing of its beginning. None: they are not."""
        now = int(self._clock())
        kept = await self._replay.recall(account, names, now)
        known = {name: _unstamped(entry) for name, entry in kept.items()}
        if again is not None:
            stale = [name for name, entry in kept.items() if 0 < _end(entry) < now + KEPT // 2]
            again |= {name: known[name] for name in stale[: max(0, RENEWED - len(again))]}
        return known

    async def _keep_again(self, account: str, again: Mapping[str, bytes]) -> None:
        """Once everything was read: a store that cannot write spoils no request that it could read for."""
        if again:
            await self.keep(account, again)

    async def recall(self, account: str, names: Sequence[str], renew: bool = True) -> dict[str, bytes]:
        """What a request names itself. Raises Unavailable: it cannot be told then whether it is kept."""
        known: dict[str, bytes] = {}
        again: dict[str, bytes] | None = {} if renew else None
        try:
            async with asyncio.timeout(self._patience):
                for start in range(0, len(names), TOGETHER):
                    known |= await self._look(account, names[start : start + TOGETHER], again)
                    if sum(map(len, known.values())) > MOST_READ:
                        break  # more than any request may refer to; the rest would only cost memory
        except (StoreDown, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, StoreDown) else StoreDown.cause
            raise Unavailable("Earlier answers cannot be read at present.", cause=cause) from exc
        await self._keep_again(account, again or {})
        return known

    async def keep(self, account: str, entries: Mapping[str, bytes]) -> None:
        if not self.keeps:
            return
        try:
            async with asyncio.timeout(self._patience):
                until = int(self._clock()) + KEPT
                await self._replay.keep(account, _stamped(entries, until), until)
        except (StoreDown, TimeoutError) as exc:
            emit("replay_down", logging.WARNING, step="keep", account=account, detail=str(exc))
        except Exception:  # the answer is whole without it, and is being charged
            log.exception("crash", extra={"fields": {"step": "keep", "account": account}})


def _stamped(entries: Mapping[str, bytes], until: int) -> dict[str, bytes]:
    """With the end of their life before them. No other entry begins with the mark: those are compressed."""
    return {name: _MARK + until.to_bytes(_TIME, "big") + entry for name, entry in entries.items()}


def _end(entry: bytes) -> int:
    """0 for an entry without a stamp, of an older release."""
    return int.from_bytes(entry[1 : 1 + _TIME], "big") if entry[:1] == _MARK else 0


def _unstamped(entry: bytes) -> bytes:
    return entry[1 + _TIME :] if entry[:1] == _MARK else entry


async def tee(
    chunks: AsyncGenerator[list[Chunk], None], see: Sequence[Callable[[list[Chunk]], None]]
) -> AsyncGenerator[list[Chunk], None]:
    """The same chunks, each batch shown to all of `see` before it goes on."""
    async with aclosing(chunks):
        async for some in chunks:
            for each in see:
                each(some)
            yield some
