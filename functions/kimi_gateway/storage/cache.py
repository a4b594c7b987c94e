"""What an account's next request may refer to, kept for a while: the reasoning behind a tool call, an answer
by its id. It is a courtesy: none of it is missed with an error where it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

LARGEST = 256 * 1024  # bytes of one entry; an item of DynamoDB holds 400 KB with its names
MOST_OF_ACCOUNT = 16 * 2**20  # bytes; the oldest makes room
MOST = 512 * 2**20  # bytes of all accounts, in a store that has to bound itself
SMALLEST = 128  # bytes that an entry counts at least: its name and place


class Cache(Protocol):
    """Bytes by account and name. Both methods raise StoreDown."""

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        """Until that unix second at most; replaces those of the same name, drops too large ones."""
        ...

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        """Those of `names` that are still kept for this account, and no other's."""
        ...


def size(value: bytes) -> int:
    """What an entry counts."""
    return SMALLEST + len(value)


def fitting(entries: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without the ones that are too large to keep."""
    return {name: value for name, value in entries.items() if len(value) <= LARGEST}
