"""What an account's next request may refer to, kept for a while: the reasoning behind a tool call, an answer
by its id. It is a courtesy: none of it is missed with an error where it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Replay(Protocol):
    """Bytes by account and name. Both methods raise StoreDown."""

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        """Until that unix second at most; replaces those of the same name, drops too large ones."""
        ...

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        """Those of `names` that are still kept for this account, and no other's."""
        ...
