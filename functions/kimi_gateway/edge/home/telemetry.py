"""Observation of the gateway from outside of requests: counting, and the scrape. Only a gateway whose settings
ask for one of them loads this module."""

from __future__ import annotations

import asyncio

from kimi_gateway.app import Running
from kimi_gateway.edge.home.counting import Counting
from kimi_gateway.edge.home.scrape import Scrape
from kimi_gateway.settings import Settings

REFRESHED = 1.0  # seconds between two reads of a worker for the looks of the others


class Telemetry:
    """`begin` before the gateway starts, `start` after it, `stop` at the end, whatever happened."""

    def __init__(self, settings: Settings) -> None:
        self.counting = Counting(settings.data)
        self.scrape = Scrape(self.counting, *settings.metrics) if settings.metrics is not None else None
        self._beating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self.counting.start()

    async def start(self, running: Running) -> None:
        """Raises OSError if the address for scrapes cannot be used."""
        self.counting.running = running
        if self.scrape is not None:
            await self.scrape.start()
        if self.counting.shared:
            self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self.scrape is not None:
            await self.scrape.stop()
        self.counting.stop()

    async def _beat(self) -> None:
        while True:
            self.counting.refresh()
            await asyncio.sleep(REFRESHED)
