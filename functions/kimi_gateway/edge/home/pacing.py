"""The pace of answers that cost nothing: a caller that asks too often for them waits for each one.

One costs little, but a caller with a thousand connections that asks again after each keeps the process busy
with nothing else. A connection that waits asks for nothing.
"""

from __future__ import annotations

from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.http import Request

RATE = 100  # refusals a second that an account gets, or an address without a key
AT_ONCE = 1_000  # refusals that wait for nothing
LONGEST = AT_ONCE / RATE  # seconds that one waits
OPEN_RATE, OPEN_AT_ONCE = 1_000, 3_000  # the same for other answers to an address without a key


class Pacing:
    """Counted by account or address, in this process."""

    def __init__(self) -> None:
        self._refusals = Buckets(RATE, AT_ONCE)
        self._open = Buckets(OPEN_RATE, OPEN_AT_ONCE)

    def wait(self, request: Request, status: int, now: float) -> float:
        """The seconds that this answer has to wait. Answers to a key that are no refusals wait for nothing,
        nor do callers without an address."""
        account = request.record.account
        refused = 400 <= status < 500
        if not (name := account or request.client) or (account and not refused):
            return 0.0
        buckets = self._refusals if refused else self._open
        wait = buckets.wait(name, now)
        buckets.spend(name, now, 1)
        return min(wait, LONGEST)
