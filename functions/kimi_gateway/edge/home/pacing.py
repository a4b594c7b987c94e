"""The pace of refusals: a caller that is refused too often waits for each one.

A refusal costs little, but a caller with a thousand connections that asks again after each keeps the process
busy with nothing else. A connection that waits asks for nothing.
"""

from __future__ import annotations

from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.http import Request

RATE = 100  # refusals a second that an account gets, or an address without a key
AT_ONCE = 1_000  # refusals that wait for nothing
LONGEST = AT_ONCE / RATE  # seconds that one waits


class Refusals:
    """Counted by account or address, in this process."""

    def __init__(self) -> None:
        self._of = Buckets(RATE, AT_ONCE)

    def wait(self, request: Request, status: int, now: float) -> float:
        """The seconds that this answer has to wait. Failures of the gateway or the upstream wait for nothing,
        nor do callers without an address."""
        name = request.record.account or request.client
        if not (name and 400 <= status < 500):
            return 0.0
        wait = self._of.wait(name, now)
        self._of.spend(name, now, 1)
        return min(wait, LONGEST)
