"""A cache for an account's next request: the reasoning of tool calls, and answers by id.

Entries may disappear at any time; a missing entry is never an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

LARGEST = 256 * 1024  # bytes of one entry; an item of DynamoDB holds 400 KB including its names
MOST_OF_ACCOUNT = 16 * 2**20  # bytes; the oldest entries are dropped
MOST = 512 * 2**20  # bytes of all accounts, in a store that must bound itself
# Names that begin so are of answers and conversations, which a client may delete. Each process asks the store
# for them, so that a deletion counts everywhere at once.
DELETABLE = ("response:", "items:", "conversation:")
SMALLEST = 128  # least bytes that an entry counts, for its name and place


class Cache(Protocol):
    """Bytes by account and name. Every method raises StoreDown."""

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        """Store entries until the unix second `until` at most. Replaces entries of the same name; drops those
        above LARGEST."""
        ...

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        """The entries of `names` that this account still has. Other accounts' entries are never returned."""
        ...

    async def forget(self, account: str, names: Sequence[str]) -> None:
        """Delete the entries of `names` that this account has."""
        ...


def size(value: bytes) -> int:
    """The bytes that an entry counts."""
    return SMALLEST + len(value)


def fitting(entries: Mapping[str, bytes]) -> dict[str, bytes]:
    """The entries that are small enough to keep."""
    return {name: value for name, value in entries.items() if len(value) <= LARGEST}
