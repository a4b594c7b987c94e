"""Observation of the gateway from outside of requests: counting, the scrape, OpenTelemetry, alerts. Only a
gateway whose settings ask for one of them loads this module."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from kimi_gateway.app import Running, http_client
from kimi_gateway.edge.home.counting import Counting
from kimi_gateway.observe import sinks, tracers
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.edge.home.alerts import Alerts
    from kimi_gateway.edge.home.otlp_export import Exporter
    from kimi_gateway.edge.home.scrape import Scrape

REFRESHED = 1.0  # seconds between two reads of a worker for the looks of the others


class Telemetry:
    """`begin` before the gateway starts, `start` after it, `stop` at the end, whatever happened."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.counting = Counting(settings.data)
        self.scrape = _scrape(self.counting, settings)
        self.exporter = _exporter(self.counting, settings)
        self.alerts = _alerts(self.counting, settings, clock)
        self._beating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Count from now on, and time the store of the gateway that is started next."""
        self.counting.start()
        if self.exporter is not None:
            sinks.append(self.exporter)
            if self.exporter.traces:
                tracers.append(self.exporter.trace)

    async def start(self, running: Running) -> None:
        """Raises OSError if the address for scrapes cannot be used."""
        self.counting.running = running
        if self.scrape is not None:
            await self.scrape.start()
        if self.exporter is not None:
            self.exporter.start()
        if self.alerts is not None:
            self.alerts.start()
        if self.counting.shared:
            self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self.exporter is not None:
            if self.exporter in sinks:
                sinks.remove(self.exporter)
            if self.exporter.trace in tracers:
                tracers.remove(self.exporter.trace)
        parts = (self.alerts, self.scrape, self.exporter)  # together, as each may wait for its receiver
        await asyncio.gather(*(part.stop() for part in parts if part is not None))
        self.counting.stop()

    async def _beat(self) -> None:
        while True:
            self.counting.refresh()
            await asyncio.sleep(REFRESHED)


def _scrape(counting: Counting, settings: Settings) -> Scrape | None:
    if settings.metrics is None:
        return None
    from kimi_gateway.edge.home.scrape import Scrape

    return Scrape(counting, *settings.metrics)


def _exporter(counting: Counting, settings: Settings) -> Exporter | None:
    if not settings.otlp:
        return None
    from kimi_gateway.edge.home.otlp_export import Exporter
    from kimi_gateway.observe.otlp import options

    read = options.read(settings.otlp)
    urls = [target.url for target in (read.traces, read.metrics) if target is not None]
    client = http_client(urls[0], os.environ, *urls[1:]) if urls else http_client("http://localhost", {})
    return Exporter(read, client, counting.metrics, counting.own)


def _alerts(counting: Counting, settings: Settings, clock: Callable[[], float]) -> Alerts | None:
    url = settings.alerts_url
    if not url:
        return None
    from kimi_gateway.edge.home.alerts import ONLY_LOG, Alerts, Webhook

    webhook = None if url == ONLY_LOG else Webhook(url, http_client(url, os.environ), counting)
    return Alerts(settings.data, counting, webhook, settings.alerts_balance, clock)
