"""Waiting for a loop to come to rest: by what it has left to do, not by a number of turns."""

from __future__ import annotations

import asyncio


async def settle() -> None:
    """Lets every task come as far as it can without the network, threads and timers."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110
        await asyncio.sleep(0)
