"""Usage rows: all that a request used is counted with its settlement, and kept for as long as was asked."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_gateway.accounts.store import Store
from kimi_gateway.accounts.usage import CAUSES
from kimi_gateway.accounts.values import Grant, NewKey, Usage, UsageRow
from kimi_gateway.storage.dynamodb.store import DynamoStore
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.sqlite.database import MIGRATIONS
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW, MakeClient

pytestmark = pytest.mark.anyio
ALL = Usage(input=1_000, output=200, cached=300, written=40, reasoning=50, fees=2_000, cost=9_000, saved=810)
HOUR, DAY = 3_600, 86_400


async def test_a_row_has_all_that_its_requests_used(store: Store, client: MakeClient) -> None:
    alice = await client()
    await alice.settle(await alice.admit(), ALL)
    alice.now += 7
    await alice.settle(await alice.admit(cost=2), replace(ALL, cost=1))
    (row,) = await store.usage(NOW)
    assert row == UsageRow(
        NOW, alice.id, alice.key.id, "kimi-k2", 2, 0, 2_000, 400, 3, NOW + 7,
        cached=600, written=80, reasoning=100, fees=4_000, cost=9_001, saved=1_620, last_cost=1,
    )  # fmt: skip


async def test_errors_are_counted_by_cause(store: Store, client: MakeClient) -> None:
    alice = await client()
    some = CAUSES[::5]
    for cause in (*some, some[0], ""):
        assert await store.release(await alice.admit(), "kimi-k2", True, alice.now, cause=cause)
    (row,) = await store.usage(NOW)
    assert row.errors == len(some) + 2
    assert dict(row.causes) == {cause: 1 + (cause == some[0]) for cause in some}
    assert row.causes == tuple(sorted(row.causes))


async def test_what_the_vendor_counted_is_in_the_row_of_a_request_that_was_not_charged(
    store: Store, client: MakeClient
) -> None:
    alice = await client()
    failed, empty = await alice.admit(), await alice.admit()
    assert await store.release(failed, "kimi-k2", True, NOW, usage=ALL, cause="broken")
    assert await store.release(empty, "kimi-k2", False, NOW, usage=ALL)
    (row,) = await store.usage(NOW)
    assert (row.requests, row.errors, row.free, row.credits) == (0, 1, 1, 0)
    assert (row.input, row.cost, row.causes) == (2_000, 18_000, (("broken", 1),))


Kept = Callable[[int], Store]


@pytest.fixture(params=["memory", "sqlite"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    made: list[Store] = []

    def make(seconds: int) -> Store:
        store: Store = (
            MemoryStore(keep_usage=seconds)
            if request.param == "memory"
            else SqliteStore(tmp_path / "accounts.db", keep_usage=seconds)
        )
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


async def test_rows_are_deleted_after_their_time(kept: Kept) -> None:
    store = kept(DAY)
    account = await store.create_account("a", Grant(10), NOW)
    key = await store.create_key(NewKey("d", account.id), NOW)
    for number, hour in enumerate((NOW, NOW + HOUR)):
        admission = await store.admit(f"r{number}", key, 1, hour + LEASE, hour)
        assert await store.release(admission, "m", True, hour, cause="rate")
    await store.purge(NOW + DAY)
    assert [row.hour for row in await store.usage(0)] == [NOW, NOW + HOUR]
    await store.purge(NOW + DAY + 1)
    assert [row.hour for row in await store.usage(0)] == [NOW + HOUR]
    assert (await store.account(account.id, NOW)).consumed == 0


async def test_dynamodb_deletes_an_hour_after_its_time(shared: SharedTable) -> None:
    store, key = DynamoStore(shared.name, shared.aws, keep_usage=DAY), await shared.key(Grant(9))
    for number, hour in enumerate((NOW, NOW + HOUR)):
        admission = await store.admit(f"r{number}", key, 1, hour + LEASE, hour)
        assert await store.settle(admission, "m", ALL, hour)
    assert (await shared.item(f"H#{key.account}", f"{NOW:010d}"))["ttl"] == {"N": str(NOW + DAY)}


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
async def test_the_move_to_the_history_takes_everything_and_stays_one_change(shared: SharedTable) -> None:
    """More attributes than one change may have: rows with errors of many causes."""
    store, key = shared.stores[0], await shared.key(Grant(10_000))
    for number in range(7):
        for cause in CAUSES:
            admission = await store.admit(f"{cause}{number}", key, 1, NOW + LEASE, NOW)
            assert await store.release(admission, f"m{number}", True, NOW, usage=ALL, cause=cause)
    before = await store.usage(NOW)
    for number in range(4):
        admission = await store.admit(f"later{number}", key, 1, NOW + HOUR + LEASE, NOW + HOUR)
        assert await store.settle(admission, "m", ALL, NOW + HOUR)
    assert [row for row in await store.usage(NOW) if row.hour == NOW] == before
    assert len(before) == 7
    hot = await shared.hot(key)
    assert {name[-1] for name in hot if name[0] in "qtiple" and len(name) > 5} == {"m"}


async def test_a_database_of_before_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        for statements in MIGRATIONS[:8]:
            for statement in statements:
                db.execute(statement)
        db.execute("INSERT INTO usage VALUES (?, 'acc_1', 'key_1', 'm', 3, 2, 30, 20, 3, ?)", (NOW, NOW + 9))
        db.execute("PRAGMA user_version = 8")
        db.commit()
    store = SqliteStore(path)
    assert await store.usage(0) == [UsageRow(NOW, "acc_1", "key_1", "m", 3, 2, 30, 20, 3, NOW + 9)]
    await store.close()


async def test_a_table_of_before_keeps_its_rows(shared: SharedTable) -> None:
    """The hot item had two numbers and a second for each row."""
    store, key = shared.stores[0], await shared.key(Grant(9))
    from kimi_gateway.net.aws import DYNAMODB
    from kimi_gateway.storage.dynamodb import tally

    rest = tally.name_of(NOW, key.id, "m")
    values = {"q": 3 * 10**16 + 3 * 10**8 + 2, "t": 30 * 10**13 + 20, "l": 9}
    hot = await shared.hot(key) | {letter + rest: {"N": str(value)} for letter, value in values.items()}
    await shared.aws.call(DYNAMODB, "PutItem", {"TableName": shared.name, "Item": hot})
    old = UsageRow(NOW, key.account, key.id, "m", 3, 2, 30, 20, 3, NOW + 9)
    assert await store.usage(0) == [old]
    admission = await store.admit("r", key, 1, NOW + HOUR + LEASE, NOW + HOUR)
    assert await store.settle(admission, "m", ALL, NOW + HOUR)
    assert (await store.usage(0))[0] == old
