"""The end of telemetry: a receiver that is down holds a shutdown up once, and briefly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.edge.home.posting import FLUSH
from kimi_gateway.edge.home.telemetry import Telemetry
from kimi_gateway.settings import Settings

pytestmark = pytest.mark.anyio


class Part:
    """It stops when the others stop, too."""

    def __init__(self, together: asyncio.Barrier) -> None:
        self._together = together

    async def stop(self) -> None:
        await self._together.wait()

    def trace(self) -> None: ...


async def test_all_receivers_are_waited_for_together(tmp_path: Path) -> None:
    telemetry: Any = Telemetry(Settings(data=tmp_path), lambda: 0.0)
    together = asyncio.Barrier(3)
    telemetry.alerts, telemetry.scrape, telemetry.exporter = (Part(together) for _ in range(3))
    async with asyncio.timeout(20):
        await telemetry.stop()
    assert FLUSH == 1
