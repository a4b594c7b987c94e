"""Queues that are fair between owners, also for something that becomes free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from itertools import zip_longest
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
W = TypeVar("W")
G = TypeVar("G")
LOOKED = 1.0  # seconds between looks without an event, because time alone can free things


class FairQueue(Generic[T]):
    """Within an owner first come, first served. `served` sends an owner behind the others. A step takes the
    same time whatever waits, but for iterating and `greedy`."""

    def __init__(self) -> None:
        self._of: dict[str, dict[T, None]] = {}  # owners in the order of their turns
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, owner: str, item: T) -> None:
        self._of.setdefault(owner, {})[item] = None
        self._size += 1

    def remove(self, owner: str, item: T) -> None:
        items = self._of[owner]
        del items[item]
        self._size -= 1
        if not items:
            del self._of[owner]

    def served(self, owner: str) -> None:
        if owner in self._of:
            self._of[owner] = self._of.pop(owner)

    def take(self) -> T:
        """The item whose turn it is. Raises StopIteration if nothing waits."""
        owner = next(iter(self._of))
        item = next(iter(self._of[owner]))
        self.remove(owner, item)
        self.served(owner)
        return item

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Owners and items in the order of their turns, as they wait now."""
        rounds = zip_longest(*([(owner, item) for item in items] for owner, items in self._of.items()))
        return iter([each for one in rounds for each in one if each is not None])

    def greedy(self) -> tuple[str, int]:
        """The owner with the most items, and their number. Raises ValueError if nothing waits."""
        owner = max(self._of, key=lambda each: len(self._of[each]))
        return owner, len(self._of[owner])

    def newest(self, owner: str) -> T:
        return next(reversed(self._of[owner]))


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
