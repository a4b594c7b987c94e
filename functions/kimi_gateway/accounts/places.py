"""Upstream calls in flight by account, so that one account cannot take all connections of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kimi_gateway.errors import RateLimited


class Places:
    """At most `most` for each account; counted in this process only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, int] = {}

    def check(self, account: str, calls: int = 1) -> None:
        """Raises RateLimited if `calls` more would exceed the limit."""
        taken = self._taken.get(account, 0)
        if taken + calls > self._most:
            raise RateLimited(
                f"This account has {taken} of at most {self._most} upstream calls in flight"
                f" (KIMI_GATEWAY_ACCOUNT_CONCURRENCY) and asks for {calls} more."
                " Wait for one of its running requests to end, then try again.",
                retry_after=1,
                cause="account_concurrency",
            )

    def take(self, account: str, calls: int) -> None:
        """Take places for `calls`. Raises RateLimited."""
        self.check(account, calls)
        self._taken[account] = self._taken.get(account, 0) + calls

    def give(self, account: str, calls: int) -> None:
        """Free places; accounts without calls are forgotten."""
        left = self._taken.get(account, 0) - calls
        if left > 0:
            self._taken[account] = left
        else:
            self._taken.pop(account, None)

    @contextmanager
    def held(self, account: str) -> Iterator[None]:
        """Hold a place for one call. Raises RateLimited."""
        self.take(account, 1)
        try:
            yield
        finally:
            self.give(account, 1)
