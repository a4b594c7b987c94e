"""Every store of what accounts may refer to again, and the memory before one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.storage.cache import DELETABLE, LARGEST, MOST_OF_ACCOUNT, Cache
from kimi_gateway.storage.memory_cache import MemoryCache, RememberingCache
from kimi_gateway.storage.sqlite.store import SqliteStore
from support import store_client
from support.store_client import NOW, ON_DYNAMODB, STORES

pytestmark = pytest.mark.anyio

UNTIL = NOW + 100


@asynccontextmanager
async def memory(folder: Path, url: str) -> AsyncIterator[Cache]:
    yield MemoryCache()


@asynccontextmanager
async def remembered(folder: Path, url: str) -> AsyncIterator[Cache]:
    async with store_client.sqlite(folder, "") as store:
        yield RememberingCache(store)  # type: ignore[arg-type]


REPLAYS: dict[str, Any] = {**STORES, "memory": memory, "remembered sqlite": remembered}
BOUNDED = [name for name in REPLAYS if name not in ON_DYNAMODB]


@pytest.fixture(params=REPLAYS)
async def replay(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Cache]:
    url = request.getfixturevalue(f"{request.param}_url") if request.param in ON_DYNAMODB else ""
    async with REPLAYS[request.param](tmp_path, url) as replay:
        yield replay


async def test_what_was_kept_comes_back_byte_for_byte_and_only_what_was_asked_for(replay: Cache) -> None:
    await replay.keep("a", {"one": b"\x00\xff1", "two": b"2"}, UNTIL)
    assert await replay.recall("a", ["one", "three"], NOW) == {"one": b"\x00\xff1"}
    assert await replay.recall("a", [], NOW) == {}


async def test_an_account_sees_its_own_only(replay: Cache) -> None:
    await replay.keep("a", {"one": b"1"}, UNTIL)
    await replay.keep("b", {"one": b"other"}, UNTIL)
    assert await replay.recall("a", ["one"], NOW) == {"one": b"1"}
    assert await replay.recall("c", ["one"], NOW) == {}


async def test_the_later_one_of_a_name_holds(replay: Cache) -> None:
    await replay.keep("a", {"one": b"1"}, UNTIL)
    await replay.keep("a", {"one": b"2"}, UNTIL + 10)
    assert await replay.recall("a", ["one"], UNTIL + 5) == {"one": b"2"}


async def test_it_ends_at_its_second(replay: Cache) -> None:
    await replay.keep("a", {"one": b"1"}, UNTIL)
    assert await replay.recall("a", ["one"], UNTIL - 1) == {"one": b"1"}
    assert await replay.recall("a", ["one"], UNTIL) == {}


async def test_what_is_too_large_is_left_out_and_the_rest_is_kept(replay: Cache) -> None:
    await replay.keep("a", {"huge": bytes(LARGEST + 1), "most": bytes(LARGEST), "one": b"1"}, UNTIL)
    found = await replay.recall("a", ["huge", "most", "one"], NOW)
    assert {name: len(value) for name, value in found.items()} == {"most": LARGEST, "one": 1}


async def test_many_names_at_once(replay: Cache) -> None:
    entries = {f"name-{number}": str(number).encode() for number in range(250)}
    await replay.keep("a", entries, UNTIL)
    assert await replay.recall("a", list(entries), NOW) == entries


async def test_many_of_the_largest_at_once(replay: Cache) -> None:
    """In one answer of DynamoDB they would be more than the gateway reads of one."""
    names = [f"name-{number}" for number in range(26)]
    for name in names:
        await replay.keep("a", {name: bytes(LARGEST)}, UNTIL)
    found = await replay.recall("a", names, NOW)
    assert {name: len(value) for name, value in found.items()} == dict.fromkeys(names, LARGEST)


@pytest.mark.parametrize("replay", BOUNDED, indirect=True)
async def test_an_account_that_keeps_too_much_loses_its_oldest_and_no_one_elses(replay: Cache) -> None:
    await replay.keep("b", {"other": b"1"}, UNTIL)
    large = bytes(LARGEST)
    many = MOST_OF_ACCOUNT // LARGEST + 4
    for number in range(many):
        await replay.keep("a", {f"name-{number}": large}, UNTIL + number)
    found = await replay.recall("a", [f"name-{number}" for number in range(many)], NOW)
    assert f"name-{many - 1}" in found
    assert "name-0" not in found
    assert sum(map(len, found.values())) <= MOST_OF_ACCOUNT
    assert len(found) > many // 2


async def test_the_heartbeat_of_sqlite_purges_what_has_ended(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "accounts.db")
    await store.keep("a", {"one": b"1", "two": b"2"}, UNTIL)
    await store.keep("a", {"later": b"3"}, UNTIL + 10)
    await store.purge(UNTIL)
    assert await store.recall("a", ["one", "two", "later"], NOW) == {"later": b"3"}
    await store.close()


async def test_one_process_finds_what_another_kept(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "accounts.db"), SqliteStore(tmp_path / "accounts.db")
    await first.keep("a", {"one": b"1"}, UNTIL)
    assert await second.recall("a", ["one"], NOW) == {"one": b"1"}
    await first.close()
    await second.close()


class Counted:
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        self.store, self.asked = MemoryCache(), list[str]()

    async def keep(self, account: str, entries: Mapping[str, bytes], until: int) -> None:
        await self.store.keep(account, entries, until)

    async def recall(self, account: str, names: Sequence[str], now: int) -> dict[str, bytes]:
        self.asked += names
        return await self.store.recall(account, names, now)


async def test_the_memory_asks_once_for_what_it_has_not_seen_and_never_for_what_it_kept() -> None:
    store = Counted()
    await store.store.keep("a", {"elsewhere": b"2"}, UNTIL + 10_000)
    memory = RememberingCache(store)
    await memory.keep("a", {"here": b"1"}, UNTIL)
    for _ in range(3):
        found = await memory.recall("a", ["here", "elsewhere", "nowhere"], NOW)
        assert found == {"here": b"1", "elsewhere": b"2"}
    assert store.asked == ["elsewhere", "nowhere"]


async def test_the_memory_is_bounded_and_the_store_behind_it_still_knows() -> None:
    store = Counted()
    memory = RememberingCache(store, most=6_000)
    for number in range(10):
        await memory.keep("a", {f"name-{number}": bytes(500)}, UNTIL)
    found = await memory.recall("a", [f"name-{number}" for number in range(10)], NOW)
    assert len(found) == 10
    assert "name-9" not in store.asked
    assert "name-0" in store.asked


async def test_an_account_displaces_nothing_of_another_from_the_memory() -> None:
    store = Counted()
    memory = RememberingCache(store, most=6_000)
    await memory.keep("a", {"one": b"1"}, UNTIL)
    for number in range(100):
        await memory.keep("b", {f"name-{number}": bytes(500)}, UNTIL)
        await memory.recall("b", [f"unknown-{number}"], NOW)
    store.asked.clear()
    assert await memory.recall("a", ["one"], NOW) == {"one": b"1"}
    assert store.asked == []


async def test_what_is_forgotten_is_gone_and_nothing_else(replay: Cache) -> None:
    await replay.keep("a", {"one": b"1", "two": b"2", "response:1": b"3"}, UNTIL)
    await replay.keep("b", {"one": b"other"}, UNTIL)
    await replay.forget("a", ["one", "response:1", "never"])
    await replay.forget("c", ["one"])
    await replay.forget("a", [])
    assert await replay.recall("a", ["one", "two", "response:1"], NOW) == {"two": b"2"}
    assert await replay.recall("b", ["one"], NOW) == {"one": b"other"}


async def test_many_are_forgotten_at_once(replay: Cache) -> None:
    entries = {f"name-{number}": b"1" for number in range(60)}
    await replay.keep("a", entries, UNTIL)
    await replay.forget("a", list(entries))
    assert await replay.recall("a", list(entries), NOW) == {}


async def test_a_deletion_by_one_process_counts_in_another_at_once(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "accounts.db") for _ in range(2)]
    first, second = map(RememberingCache, stores)
    for name in (f"{prefix}1" for prefix in DELETABLE):
        await first.keep("a", {name: b"1"}, UNTIL)
        assert await second.recall("a", [name], NOW) == {name: b"1"}
        await second.forget("a", [name])
        assert await first.recall("a", [name], NOW) == {}
    for store in stores:
        await store.close()
