"""The interface of stores that accounts can be moved from and to."""

from __future__ import annotations

from typing import Protocol

from kimi_gateway.accounts.moving import Moved, Snapshot


class Mover(Protocol):
    """Both methods raise StoreDown."""

    async def snapshot(self, now: int) -> Snapshot: ...

    async def restore(self, moved: Moved, now: int) -> bool:
        """Put an account into the store, all or nothing. Reserved credits come back without expiry. False if
        it was put there before, whatever became of it since.

        Raises Taken if the store has another account or key with its ids; then nothing is written.
        """
        ...
