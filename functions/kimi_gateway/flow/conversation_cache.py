"""Conversation cache with a 2 s time-out; failures are logged unless the client named the entry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import Unavailable
from kimi_gateway.observe import emit, log
from kimi_gateway.providers.provider import Missing
from kimi_gateway.storage.cache import Cache

KEPT = 24 * 3600  # seconds
RENEWED = 64  # entries that one request renews at most
_MARK, _TIME = b"\x01", 6  # a stamp: the mark, and bytes of a unix second
TOGETHER = 100  # entries read at once for a request that names them
MOST_READ = 8 * 2**20  # bytes after which reading stops; twice what a request may refer to, unpacked
PATIENCE = 2.0  # seconds that a request, or the end of an answer, waits for the store


class ConversationCache:
    """`keeps`: whether anything is stored; if not, nothing is found either. `patience`: seconds for reading,
    and again for writing."""

    def __init__(
        self, cache: Cache, clock: Callable[[], float], keeps: bool = True, patience: float = PATIENCE
    ) -> None:
        self.keeps = keeps
        self._patience = patience
        self._cache = cache
        self._clock = clock

    async def has(self, account: str, name: str) -> bool:
        """Whether an entry is still there; also if the store cannot answer."""
        try:
            return name in await self.recall(account, [name], renew=False)
        except Unavailable:
            return True

    async def forget(self, account: str, names: Sequence[str]) -> None:
        """Delete entries. Raises Unavailable if the store cannot."""
        try:
            async with asyncio.timeout(self._patience):
                await self._cache.forget(account, names)
        except (StoreDown, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, StoreDown) else StoreDown.cause
            raise Unavailable("Nothing can be deleted at present.", retry_after=1, cause=cause) from exc

    async def restore(self, account: str, missing: Missing, keeps: bool = True) -> int:
        """Restore the reasoning that a history lost, as far as it is known. Returns the number of added
        characters. `keeps`: what is found may be written again."""
        entries = _Entries(self, account)
        if self.keeps:
            try:
                async with asyncio.timeout(self._patience):
                    await missing.look_up(entries)
            except (StoreDown, TimeoutError) as exc:
                emit("replay_down", logging.WARNING, step="recall", account=account, detail=str(exc))
            if keeps:
                await self._write(account, entries.again)
        return missing.restore()

    async def look(self, account: str, names: Sequence[str], again: dict[str, bytes]) -> dict[str, bytes]:
        """Entries by name. Those in the second half of their life are added to `again`, up to RENEWED in all,
        so that an active conversation keeps its beginning."""
        now = int(self._clock())
        kept = await self._cache.recall(account, names, now)
        known = {name: _unstamped(entry) for name, entry in kept.items()}
        stale = [name for name, entry in kept.items() if 0 < _end(entry) < now + KEPT // 2]
        again |= {name: known[name] for name in stale[: max(0, RENEWED - len(again))]}
        return known

    async def recall(self, account: str, names: Sequence[str], renew: bool = True) -> dict[str, bytes]:
        """Entries that the request itself names. Raises Unavailable if the store cannot answer."""
        known: dict[str, bytes] = {}
        again: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(self._patience):
                for start in range(0, len(names), TOGETHER):
                    known |= await self.look(account, names[start : start + TOGETHER], again)
                    if sum(map(len, known.values())) > MOST_READ:
                        break  # more than any request may refer to; the rest would only cost memory
        except (StoreDown, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, StoreDown) else StoreDown.cause
            raise Unavailable("Earlier answers cannot be read at present.", cause=cause) from exc
        if renew:
            await self._write(account, again)
        return known

    async def found(self, account: str, names: Sequence[str]) -> dict[str, bytes]:
        """Entries that the client did not name. Nothing is found if the store cannot answer."""
        again: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(self._patience):
                known = await self.look(account, names, again)
        except (StoreDown, TimeoutError) as exc:
            emit("replay_down", logging.WARNING, step="recall", account=account, detail=str(exc))
            return {}
        await self._write(account, again)
        return known

    async def _write(self, account: str, again: Mapping[str, bytes]) -> None:
        """After reading, so that a store that can be read but not written costs only a delay."""
        if again:
            await self.keep(account, again)

    async def keep(self, account: str, entries: Mapping[str, bytes]) -> None:
        if not self.keeps:
            return
        try:
            async with asyncio.timeout(self._patience):
                until = int(self._clock()) + KEPT
                await self._cache.keep(account, _stamped(entries, until), until)
        except (StoreDown, TimeoutError) as exc:
            emit("replay_down", logging.WARNING, step="keep", account=account, detail=str(exc))
        except Exception:  # the answer is complete without it and is being charged
            log.exception("crash", extra={"fields": {"step": "keep", "account": account}})


@dataclass(frozen=True, slots=True)
class _Entries:
    """Entries of one account. `again`: what to write once everything was read."""

    cache: ConversationCache
    account: str
    again: dict[str, bytes] = field(default_factory=dict)

    async def look(self, names: Sequence[str]) -> dict[str, bytes]:
        return await self.cache.look(self.account, names, self.again)

    async def keep(self, entries: Mapping[str, bytes]) -> None:
        self.again.update(entries)


def _stamped(entries: Mapping[str, bytes], until: int) -> dict[str, bytes]:
    """The entries with their expiry in front. No other entry begins with the mark, because those are
    compressed."""
    return {name: _MARK + until.to_bytes(_TIME, "big") + entry for name, entry in entries.items()}


def _end(entry: bytes) -> int:
    """The expiry; 0 for an entry of an older release, without a stamp."""
    return int.from_bytes(entry[1 : 1 + _TIME], "big") if entry[:1] == _MARK else 0


def _unstamped(entry: bytes) -> bytes:
    return entry[1 + _TIME :] if entry[:1] == _MARK else entry
