"""What reads attachments, put together: resolver, deletion, and the fetcher of addresses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kimi_gateway.accounts.files import FileStore
from kimi_gateway.errors import Unavailable
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.resolver import FileResolver
from kimi_gateway.files.texts import Texts
from kimi_gateway.pivot import placement
from kimi_gateway.providers.files import KeepsFiles
from kimi_gateway.providers.provider import Upstream
from kimi_gateway.settings import Settings
from kimi_gateway.storage.cache import Cache

if TYPE_CHECKING:
    from kimi_gateway.net.fetch.fetcher import Fetcher


class FileService:
    """`beat` is to be called from time to time; `close` after the last request."""

    def __init__(
        self,
        settings: Settings,
        store: FileStore,
        cache: Cache,
        upstream: Callable[[], Upstream],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._fetcher: Fetcher | None = None
        self.cleaner = Cleaner(store, upstream, clock, settings.lease)
        bounds = Bounds(
            count=placement.MOST,
            keep=settings.keep_texts if settings.keep_conversations else 0,
        )
        texts = Texts(cache, clock, bounds.keep)
        self.resolver = FileResolver(store, upstream, texts, self.cleaner, self.fetcher, clock, bounds)

    def fetcher(self) -> Fetcher:
        if self._fetcher is None:
            from kimi_gateway.net.fetch.fetcher import (
                Fetcher,  # httpx2 loads slowly, and few requests need it
            )

            self._fetcher = Fetcher(self._settings.fetch_allowed)
        return self._fetcher

    async def beat(self) -> None:
        """Keep the files of running turns, and delete those of processes that died. Raises StoreDown."""
        await self.cleaner.renew()
        await self.cleaner.sweep()

    async def close(self) -> None:
        await self.cleaner.rest(5)
        if self._fetcher is not None:
            await self._fetcher.close()
        with suppress(Unavailable):  # the tokens cannot be read any more
            provider = self._upstream().provider
            if isinstance(provider, KeepsFiles):
                await provider.files.close()
