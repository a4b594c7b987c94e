"""Waiting for a loop to come to rest: by what it has left to do, not by a number of turns. And its clock: a
test puts it ahead, so that it does not depend on how much is done in a short time."""

from __future__ import annotations

import asyncio
import time


async def settle() -> None:
    """Lets every task come as far as it can without the network, threads and timers."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110
        await asyncio.sleep(0)


BETWEEN = 0.02  # seconds that a pause between two reads of a socket is shorter than


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put ahead."""

    ahead = 0.0  # seconds

    def time(self) -> float:
        return time.monotonic() + self.ahead


async def pass_time(seconds: float) -> None:
    """Puts the clock of the running loop ahead when it has read and done all that it can. Returns when it has
    done what was due then."""
    await asyncio.sleep(BETWEEN)
    await settle()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.ahead += seconds
    await settle()
