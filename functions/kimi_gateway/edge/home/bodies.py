"""Bounds on the bytes of request bodies that a process holds, before and after their requests are admitted.

Before, nothing else bounds many large bodies that are read at the same time. Only bytes that are here count,
so a large Content-Length takes no room. After, limits bound the requests but not their bytes, and a request
may run as long as its client reads.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from kimi_gateway.errors import Unavailable
from kimi_gateway.http import Pairs, Request

SPARE = 64  # outdated entries of an order that are always allowed
SMALL = 64 * 1024  # bytes of a body that is never refused; the bound on connections covers these


K = TypeVar("K")


class Largest(Generic[K]):
    """Items with sizes, and the one with the largest size. A step takes O(log n) comparisons, amortised."""

    def __init__(self) -> None:
        self._sizes: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []  # also outdated entries
        self._entries = 0

    def set(self, item: K, size: int) -> None:
        self._sizes[item] = size
        self._entries += 1
        heappush(self._heap, (-size, self._entries, item))
        if len(self._heap) > 2 * len(self._sizes) + SPARE:
            self._heap = [(-size, at, item) for at, (item, size) in enumerate(self._sizes.items())]
            self._entries = len(self._heap)
            heapify(self._heap)

    def discard(self, item: K) -> None:
        self._sizes.pop(item, None)

    def first(self) -> K | None:
        while self._heap:
            size, _, item = self._heap[0]
            if self._sizes.get(item) == -size:
                return item
            heappop(self._heap)
        return None


class _Large:
    """An account's bodies above SMALL: their number and bytes, and those that still arrive."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.arriving = Largest[Body]()

    def largest(self) -> Body | None:
        while (body := self.arriving.first()) is not None and not body.arriving:
            self.arriving.discard(body)
        return body


class Bodies:
    """At most `most` bytes. Beyond it the account that holds most of them loses a body that still arrives, so
    one account cannot keep the others out. Only bodies above SMALL count for that, so most requests take part
    in no order."""

    def __init__(self, most: int) -> None:
        self.held = 0
        self._most = most
        self._of: dict[str, _Large] = {}
        self._accounts = Largest[str]()
        self.running = 0  # bytes of admitted requests
        self._running: dict[str, int] = {}  # by account

    def run(self, owner: str, size: int) -> bool:
        """Whether one more request may run with `size` bytes. Each account gets half of what the others
        leave, and one request in any case."""
        own = self._running.get(owner, 0)
        if own and own + size > (self._most - self.running + own) // 2:
            return False
        self._running[owner] = own + size
        self.running += size
        return True

    def rest(self, owner: str, size: int) -> None:
        """Such a request has ended."""
        self.running -= size
        if left := self._running[owner] - size:
            self._running[owner] = left
        else:
            del self._running[owner]

    def remove(self, body: Body) -> None:
        self.held -= body.size
        if body.size <= SMALL:
            return
        large = self._of[body.owner]
        large.count -= 1
        large.total -= body.size
        large.arriving.discard(body)
        if large.count:
            self._accounts.set(body.owner, large.total)
        else:
            del self._of[body.owner]
            self._accounts.discard(body.owner)

    def grown(self, body: Body, size: int) -> None:
        """`size` of the bytes of `body` are new."""
        self.held += size
        if body.size > SMALL:
            self._order(body, size)
        while self.held > self._most:
            victim = self._victim(body)
            if victim is None:
                return
            victim.refuse()

    def _order(self, body: Body, size: int) -> None:
        large = self._of.setdefault(body.owner, _Large())
        entered = body.size - size <= SMALL
        large.count += entered
        large.total += body.size if entered else size
        self._accounts.set(body.owner, large.total)
        if body.arriving:
            large.arriving.set(body, body.size)

    def _victim(self, body: Body) -> Body | None:
        """The body to refuse; None if that would help nobody."""
        most = self._accounts.first()
        if most is None:
            return None
        victim = body
        if body.owner != most or body.size <= SMALL:
            victim = self._of[most].largest() or body
        alone = victim.size == self.held
        return None if alone or victim.size <= SMALL else victim


class Body:
    """The bytes of one request. `refused` is called if they have to go; from then on `check` raises.
    `arriving` ends when the body is complete."""

    def __init__(self, bodies: Bodies, request: Request, refused: Callable[[], None]) -> None:
        self.owner = request.record.account or request.client
        self.size = 0
        self.arriving = True
        self._bodies = bodies
        self._refused = refused
        self._over = False
        self.gone = False
        self._running = 0  # bytes that count while the request runs
        request.hold, request.admitted = self.hold, self.admitted

    def grow(self, size: int) -> None:
        if not self._over:
            self.size += size
            self._bodies.grown(self, size)

    def hold(self, size: int) -> None:
        """As `grow`, for bytes of the request's own task. Raises Unavailable."""
        self.grow(size)
        self.check()

    def check(self, headers: Pairs = ()) -> None:
        """Raises Unavailable if the body was refused."""
        if self.gone:
            raise Unavailable(
                "The gateway reads too many large requests at present. Send the request again.",
                retry_after=1,
                cause="bodies",
                headers=headers,
            )

    def refuse(self) -> None:
        self.gone = True
        self.end()
        self._refused()

    def admitted(self) -> None:
        """From now on a large body counts among those of running requests. Raises Unavailable."""
        size = self.size
        self.end()
        if size > SMALL:
            if not self._bodies.run(self.owner, size):
                raise Unavailable(
                    "This account has too many large requests running. Wait for one of them to end, and send"
                    " the request again.",
                    retry_after=1,
                    cause="bodies",
                )
            self._running = size

    def end(self) -> None:
        """The request is over. May be called again."""
        if not self._over:
            self._over = True
            self._bodies.remove(self)
            self.size = 0
        if self._running:
            self._bodies.rest(self.owner, self._running)
            self._running = 0


def joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
