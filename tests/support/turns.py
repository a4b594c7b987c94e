"""A loop that counts how often it continues the tasks of requests."""

from __future__ import annotations

import asyncio
from typing import Any

from support.live import serves_requests


class CountingLoop(asyncio.SelectorEventLoop):
    switches = 0

    def call_soon(self, callback: Any, *arguments: Any, **more: Any) -> asyncio.Handle:
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task) and serves_requests(task.get_coro()):
            self.switches += 1
        return super().call_soon(callback, *arguments, **more)
