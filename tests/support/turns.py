"""A loop that counts how often it continues the tasks of requests."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from support.live import serves_requests


class CountingLoop(asyncio.SelectorEventLoop):
    switches = 0

    def call_soon(self, callback: Any, *arguments: Any, **more: Any) -> asyncio.Handle:
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task) and serves_requests(task.get_coro()):
            self.switches += 1
        return super().call_soon(callback, *arguments, **more)


class _Skipping(selectors.DefaultSelector):
    """Where the loop would wait for its next timer, the time has come."""

    passed = 0.0  # seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.passed += max(timeout or 0.0, 0.0)
        return super().select(None if timeout is None else 0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """Its seconds pass at once."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.passed
