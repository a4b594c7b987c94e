"""A bound on the bytes of request bodies that a process holds before their requests are admitted.

Credits and limits bound what follows an admission, but nothing else bounds many large bodies that are read at
the same time. Only bytes that are here count, so a large Content-Length takes no room.
"""

from __future__ import annotations

from collections.abc import Callable

from kimi_gateway.errors import Unavailable
from kimi_gateway.http import Pairs, Request

SMALL = 64 * 1024  # bytes of a body that is never refused; the bound on connections covers these


class Bodies:
    """At most `most` bytes. Beyond it the account that holds most of them loses a body that still arrives, so
    one account cannot keep the others out."""

    def __init__(self, most: int) -> None:
        self.held = 0
        self._most = most
        self._of: dict[str, dict[Body, None]] = {}
        self._totals: dict[str, int] = {}

    def add(self, body: Body) -> None:
        self._of.setdefault(body.owner, {})[body] = None
        self._totals.setdefault(body.owner, 0)

    def remove(self, body: Body) -> None:
        self.held -= body.size
        self._totals[body.owner] -= body.size
        same = self._of[body.owner]
        del same[body]
        if not same:
            del self._of[body.owner], self._totals[body.owner]

    def grown(self, body: Body, size: int) -> None:
        self.held += size
        self._totals[body.owner] += size
        while self.held > self._most:
            victim = self._victim(body)
            if victim is None:
                return
            victim.refuse()

    def _victim(self, body: Body) -> Body | None:
        """The body to refuse; None if that would help nobody."""
        most = self._of[max(self._totals, key=self._totals.__getitem__)]
        victim = body
        if body not in most or body.size <= SMALL:
            victim = max((each for each in most if each.arriving), key=_size, default=body)
        alone = victim.size == self.held
        return None if alone or victim.size <= SMALL else victim


def _size(body: Body) -> int:
    return body.size


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
        bodies.add(self)
        request.hold, request.admitted = self.hold, self.end

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

    def end(self) -> None:
        """The request was admitted, or is over. May be called again."""
        if not self._over:
            self._over = True
            self._bodies.remove(self)
            self.size = 0
