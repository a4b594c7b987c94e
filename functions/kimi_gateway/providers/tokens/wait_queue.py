"""A queue for something that becomes free, first come first served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

W = TypeVar("W")
G = TypeVar("G")
LOOKED = 1.0  # seconds between looks without an event, because time alone can free things


class WaitQueue(Generic[W, G]):
    """`choose` returns the thing for a request, None if there is none; its exceptions go to the waiter. If a
    waiter has left, its thing goes to `give_back`."""

    def __init__(self, choose: Callable[[W], G | None], give_back: Callable[[G], None]) -> None:
        self._choose = choose
        self._give_back = give_back
        self._waiting: dict[asyncio.Future[G], W] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, request: W, seconds: float) -> G | None:
        """Wait at most `seconds`; None if nothing became free."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[G] = loop.create_future()
        self._waiting[waiter] = request
        end = loop.time() + seconds
        try:
            while not waiter.done() and (left := end - loop.time()) > 0:
                await asyncio.wait({waiter}, timeout=min(left, LOOKED))
                if not waiter.done():
                    self.serve()
        except BaseException:
            if waiter.done() and waiter.exception() is None:
                self._give_back(waiter.result())
            raise
        finally:
            self._waiting.pop(waiter, None)
        return waiter.result() if waiter.done() else None

    def serve(self) -> None:
        """Call it whenever something may have become free."""
        for waiter, request in list(self._waiting.items()):
            try:
                given = self._choose(request)
            except Exception as exc:
                del self._waiting[waiter]
                waiter.set_exception(exc)
                continue
            if given is not None:
                del self._waiting[waiter]
                waiter.set_result(given)
