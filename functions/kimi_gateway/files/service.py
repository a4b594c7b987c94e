"""The parts that read attachments: resolver, deletion, and the fetcher of addresses.

They are loaded with the first request that needs them, because most functions of the cloud never do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from kimi_gateway.pivot import placement
from kimi_gateway.pivot.attachments import Attachment, Resolution, Resolver
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.accounts.files import FileStore
    from kimi_gateway.files.budget import Memory
    from kimi_gateway.files.cleaning import Cleaner
    from kimi_gateway.files.conversations import ConversationTraces
    from kimi_gateway.files.resolver import FileResolver
    from kimi_gateway.net.fetch.fetcher import Fetcher
    from kimi_gateway.providers.provider import Upstream
    from kimi_gateway.storage.cache import Cache


class FileService:
    """Implements `pivot.attachments.Resolver`. `beat` is to be called from time to time; `close` after the
    last request."""

    def __init__(
        self,
        settings: Settings,
        store: FileStore,
        cache: Cache,
        upstream: Callable[[], Upstream],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._cache = cache
        self._upstream = upstream
        self.clock = clock
        self._cleaner: Cleaner | None = None
        self._memory: Memory | None = None
        self._resolver: FileResolver | None = None
        self._fetcher: Fetcher | None = None
        self._traces: ConversationTraces | None = None
        self.web: Callable[[], Iterable[Upstream]] | None = None  # services that keep conversations

    def resolve(
        self, account: str, attachments: Sequence[Attachment], without: frozenset[str] = frozenset()
    ) -> AbstractAsyncContextManager[Resolution]:
        if self._resolver is None:
            self._resolver = self._made(self._upstream, shares=True)
        return self._resolver.resolve(account, attachments, without)

    def of_request(self, upstream: Upstream, keeps: bool) -> Resolver:
        """The same for one request: with its own tokens, and without keeping texts unless it `keeps`."""
        return self._made(lambda: upstream, keeps)

    def _made(
        self, upstream: Callable[[], Upstream], keeps: bool = True, shares: bool = False
    ) -> FileResolver:
        from kimi_gateway.accounts.bucket import BoundedDict
        from kimi_gateway.files.bounds import Bounds
        from kimi_gateway.files.budget import Memory
        from kimi_gateway.files.resolver import MOST_HELD, FileResolver
        from kimi_gateway.files.shared import Sharing
        from kimi_gateway.files.texts import Texts

        self._memory = self._memory or Memory(MOST_HELD)  # one for all resolvers
        settings, clock = self._settings, self.clock
        bounds = Bounds(
            count=placement.MOST,
            size=settings.attachment_limit,
            keep=settings.keep_texts if keeps and settings.keep_conversations else 0,
        )
        sharing = None
        if shares and settings.account_files and bounds.keep > settings.lease:
            of = self._store, self.cleaner, clock, bounds.keep, settings.lease
            sharing = Sharing(*of, BoundedDict[float]())
        return FileResolver(
            self._store,
            upstream,
            Texts(self._cache, clock, bounds.keep),
            self.cleaner,
            self.fetcher,
            clock,
            bounds,
            settings.extract == "local",
            self._memory,
            sharing,
        )

    @property
    def cleaner(self) -> Cleaner:
        if self._cleaner is None:
            from kimi_gateway.files.cleaning import Cleaner

            self._cleaner = Cleaner(self._store, self._upstream, self.clock, self._settings.lease)
            if self.web is not None:
                from kimi_gateway.files.conversations import ConversationTraces  # few gateways need it

                self._traces = ConversationTraces(self._cleaner, self.web)
        return self._cleaner

    @property
    def traces(self) -> ConversationTraces:
        """For the services of `web`."""
        _ = self.cleaner
        assert self._traces is not None  # noqa: S101  asked for only where there is such a service
        return self._traces

    def fetcher(self) -> Fetcher:
        if self._fetcher is None:
            from kimi_gateway.net.fetch.fetcher import Fetcher  # httpx2 loads slowly

            self._fetcher = Fetcher(self._settings.fetch_allowed)
        return self._fetcher

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """Deletions that still run."""
        return set() if self._cleaner is None else self._cleaner.busy

    async def beat(self) -> None:
        """Keep the files of running turns, and delete those of processes that died. Raises StoreDown."""
        await self.cleaner.renew()
        await self.cleaner.sweep()

    async def close(self) -> None:
        if self._cleaner is not None:
            await self._cleaner.rest(5)
        if self._fetcher is not None:
            await self._fetcher.close()
