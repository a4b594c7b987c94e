"""The cache in this process: the executable specification, and a bounded memory in front of another store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import field

from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.cache import DELETABLE, MOST, MOST_OF_ACCOUNT, Cache, fitting, size

REMEMBERED = 600  # seconds for which an answer of the store is reused


@dataclass(slots=True)
class _Shelf:
    """The entries of one account, the oldest first."""

    entries: OrderedDict[str, tuple[bytes, int]] = field(default_factory=OrderedDict)
    size: int = 0

    def put(self, name: str, value: bytes, until: int) -> None:
        self.drop(name)
        self.entries[name] = (value, until)
        self.size += size(value)

    def drop(self, name: str) -> None:
        value, _ = self.entries.pop(name, (None, 0))
        self.size -= 0 if value is None else size(value)

    def drop_oldest(self) -> None:
        self.drop(next(iter(self.entries)))


class MemoryCache:
    """`most_of_account` and `most` are in bytes; the oldest entries are dropped."""

    def __init__(self, most_of_account: int = MOST_OF_ACCOUNT, most: int = MOST) -> None:
        self._most_of_account = most_of_account
        self._most = most
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()  # the account that stored last is at the end
        self._size = 0

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        self.put(account, fitting(entries), until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        found = ((name, self.look(account, name, now)) for name in names)
        return {name: value for name, value in found if value is not None}

    async def forget(self, account: str, names: Sequence[str]) -> None:
        self.drop(account, names)

    def drop(self, account: str, names: Sequence[str]) -> None:
        shelf = self._shelves.get(account)
        if shelf is None:
            return
        before = shelf.size
        for name in names:
            shelf.drop(name)
        self._size += shelf.size - before
        if not shelf.entries:
            del self._shelves[account]

    def put(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        shelf = self._shelves.setdefault(account, _Shelf())
        self._shelves.move_to_end(account)
        before = shelf.size
        for name, value in entries.items():
            shelf.put(name, value, until)
        while shelf.size > self._most_of_account:
            shelf.drop_oldest()
        self._size += shelf.size - before
        while self._size > self._most:
            self._make_room()

    def look(self, account: str, name: str, now: int) -> bytes | None:
        shelf = self._shelves.get(account)
        value, until = shelf.entries.get(name, (None, 0)) if shelf else (None, 0)
        return value if until > now else None

    def _make_room(self) -> None:
        account, shelf = next(iter(self._shelves.items()))
        before = shelf.size
        shelf.drop_oldest()
        self._size += shelf.size - before
        if not shelf.entries:
            del self._shelves[account]


class RememberingCache:
    """Another store behind a memory of `most` bytes, half of them for one account, so a conversation that
    stays in one process reads nothing. Missing entries are remembered too: an entry is stored before anyone
    can ask for it."""

    def __init__(self, store: Cache, most: int = 16 * 2**20) -> None:
        self._store = store
        self._memory = MemoryCache(most_of_account=most // 2, most=most)

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        remembered = {name: entry for name, entry in entries.items() if not name.startswith(DELETABLE)}
        self._memory.put(account, fitting(remembered), until)
        await self._store.keep(account, entries, until)

    async def forget(self, account: str, names: Sequence[str]) -> None:
        self._memory.drop(account, names)
        await self._store.forget(account, names)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        looked = {name: self._memory.look(account, name, now) for name in names}
        unknown = [name for name, value in looked.items() if value is None]
        found = {name: value for name, value in looked.items() if value}
        if unknown:
            stored = await self._store.recall(account, unknown, now)
            said = {name: stored.get(name, b"") for name in unknown if not name.startswith(DELETABLE)}
            self._memory.put(account, said, now + REMEMBERED)
            found |= stored
        return found
