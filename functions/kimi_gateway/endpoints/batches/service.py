"""The batches of a gateway. Their parts are loaded with the first request or sweep that needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from kimi_gateway.http import Request, Response

if TYPE_CHECKING:
    from kimi_gateway.accounts.gate import Gate
    from kimi_gateway.endpoints.batches.api import BatchesApi
    from kimi_gateway.endpoints.batches.following import Following, Stores
    from kimi_gateway.providers.provider import Upstream
    from kimi_gateway.providers.registry import Registry


class BatchService:
    """`allowed`: see BatchesApi. `sweep` is to be called from time to time."""

    def __init__(
        self,
        gate: Gate,
        store: Stores,
        upstream: Callable[[], Upstream],
        registry: Registry,
        clock: Callable[[], float],
        allowed: tuple[str, ...],
    ) -> None:
        self._gate = gate
        self._store = store
        self._upstream = upstream
        self._registry = registry
        self._clock = clock
        self._allowed = allowed
        self._made: tuple[BatchesApi, Following] | None = None

    async def create(self, request: Request) -> Response:
        return await self._parts[0].create(request)

    async def list(self, request: Request) -> Response:
        return await self._parts[0].list(request)

    async def retrieve(self, request: Request, batch: str) -> Response:
        return await self._parts[0].retrieve(request, batch)

    async def cancel(self, request: Request, batch: str) -> Response:
        return await self._parts[0].cancel(request, batch)

    async def sweep(self) -> None:
        """Follow batches that nobody asks for. Raises StoreDown."""
        await self._parts[1].sweep()

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """Bookings that run behind an answer."""
        return self._made[1].busy if self._made else set()

    @property
    def _parts(self) -> tuple[BatchesApi, Following]:
        if self._made is None:
            from kimi_gateway.endpoints.batches.api import BatchesApi
            from kimi_gateway.endpoints.batches.following import Following

            following = Following(self._store, self._upstream, self._registry, self._clock)
            parts = self._gate, self._store, self._upstream, following, self._clock, self._allowed
            self._made = BatchesApi(*parts), following
        return self._made
