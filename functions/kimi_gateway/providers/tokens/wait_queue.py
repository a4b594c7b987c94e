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

    def of(self, owner: str) -> int:
        """The number of its items."""
        return len(self._of.get(owner, ()))

    def greedy(self) -> tuple[str, int]:
        """The owner with the most items, and their number. Raises ValueError if nothing waits."""
        owner = max(self._of, key=lambda each: len(self._of[each]))
        return owner, len(self._of[owner])

    def newest(self, owner: str) -> T:
        return next(reversed(self._of[owner]))


class Crowded(Exception):
    """The queue is full, and no owner has more waiting than this one, which has `waiting`."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} wait")
        self.waiting = waiting


class WaitQueue(Generic[W, G]):
    """`choose` returns the thing for a request, None if there is none; its exceptions go to the waiter. If a
    waiter has left, its thing goes to `give_back`. Owners take turns. At most `most` wait: one more takes the
    place of the newest waiter of the owner with the most, so one owner keeps nobody else out."""

    def __init__(self, choose: Callable[[W], G | None], give_back: Callable[[G], None], most: int) -> None:
        self._choose = choose
        self._give_back = give_back
        self._most = most
        self._waiting = FairQueue[asyncio.Future[G]]()
        self._asked: dict[asyncio.Future[G], tuple[str, W]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, owner: str, request: W, seconds: float) -> G | None:
        """Wait at most `seconds`; None if nothing became free. Raises Crowded, also later."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[G] = loop.create_future()
        self._waiting.add(owner, waiter)
        self._asked[waiter] = owner, request
        if len(self._waiting) > self._most:
            self._refuse(owner)
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
            self._leave(waiter)
        return waiter.result() if waiter.done() else None

    def serve(self) -> None:
        """Call it whenever something may have become free."""
        if not self._asked:
            return
        for owner, waiter in self._waiting:
            try:
                given = self._choose(self._asked[waiter][1])
            except Exception as exc:
                self._leave(waiter)
                waiter.set_exception(exc)
                continue
            if given is not None:
                self._leave(waiter)
                self._waiting.served(owner)
                waiter.set_result(given)

    def _refuse(self, owner: str) -> None:
        """Refuse the newest waiter of the owner with the most; of `owner`, which is one of the waiting, if
        nobody has more."""
        greedy, most = self._waiting.greedy()
        if most == self._waiting.of(owner):
            greedy = owner
        waiter = self._waiting.newest(greedy)
        self._leave(waiter)
        waiter.set_exception(Crowded(most - 1))

    def _leave(self, waiter: asyncio.Future[G]) -> None:
        if (asked := self._asked.pop(waiter, None)) is not None:
            self._waiting.remove(asked[0], waiter)
