"""A store that is gone from a step on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kimi_gateway.accounts.store import Store, StoreDown


class Dying:
    """Gone from step number `at` on: before that is applied, or just `after`."""

    def __init__(self, store: Store, at: int, after: bool) -> None:
        self.store, self.left, self.after = store, at, after

    def __getattr__(self, name: str) -> Any:
        step: Callable[..., Awaitable[Any]] = getattr(self.store, name)

        async def tried(*args: Any) -> Any:
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self.after):
                raise StoreDown("gone")
            answer = await step(*args)
            if self.left == 0:
                raise StoreDown("gone")
            return answer

        return tried
