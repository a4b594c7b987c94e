"""DynamoDB alone: usage on its way from the hot item to the history is counted once, wherever that breaks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from kimi_gateway.accounts.values import Key, NewKey, Usage, UsageRow
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support.dynamo_table import SharedTable
from support.faulty import Fault, Plan, none
from support.store_client import LEASE, NOW

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("shared", ["dynalite"], indirect=True)]
HOUR = 3_600


async def use(store: DynamoStore, key: Key, now: int, model: str = "kimi-k2", times: int = 1) -> None:
    for number in range(times):
        admission = await store.admit(f"{key.id}-{now}-{model}-{number}", key, 1, now + LEASE, now)
        assert await store.settle(admission, model, Usage(10, 1), now)


def counted(rows: list[UsageRow]) -> list[tuple[int, str, int, int, int]]:
    return [(row.hour - NOW, row.model, row.requests, row.input, row.credits) for row in rows]


async def test_past_hours_leave_the_hot_item_and_are_reported_as_before(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(None)
    other = await store.create_key(NewKey("other", key.account, limits=key.limits), NOW)
    await use(store, key, NOW, times=2)
    await use(store, other, NOW + 60)
    await use(store, key, NOW + 90, "kimi-k3")
    before = await store.usage(NOW)
    for late in (HOUR, 2 * HOUR):
        await use(store, key, NOW + late)
        assert (await store.usage(NOW))[:3] == before
    hot = await shared.hot(key)
    assert [name for name in hot if name[0] in "qtlo"] == [
        name for name in hot if name.endswith(f"{key.id[4:6]}kimi-k2")
    ]
    history = await shared.item(f"H#{key.account}", f"{NOW:010d}")
    assert sum(name[0] == "q" for name in history) == 3
    assert len(await store.usage(NOW)) == 5
    assert [row.hour for row in await store.usage(NOW + HOUR)] == [NOW + HOUR, NOW + 2 * HOUR]


async def test_the_move_costs_three_calls_an_hour(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(None)
    await use(store, key, NOW, times=2)
    await use(store, key, NOW, "kimi-k3")
    shared.client.calls.clear()
    await use(store, key, NOW + HOUR, times=3)
    assert shared.client.calls == {"UpdateItem": 6 + 3}


MOVES: dict[str, Any] = {
    "freezing": lambda request: ":o" in request["ExpressionAttributeValues"],
    "adding": lambda request: request["Key"]["pk"]["S"].startswith("H#"),
    "taking out": lambda request: request["UpdateExpression"] == "REMOVE o",
}


def spoiling(step: str, fault: Fault) -> Plan:
    def plan(operation: str, request: Any) -> Fault | None:
        return fault if operation == "UpdateItem" and MOVES[step](request) else None

    return plan


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
@pytest.mark.parametrize("step", MOVES)
async def test_a_move_that_breaks_off_is_reported_rightly_and_ended_by_another(
    shared: SharedTable, step: str, fault: Fault
) -> None:
    first, second = shared.stores[:2]
    key = await shared.key(None)
    await use(first, key, NOW, times=3)
    shared.client.plan = spoiling(step, fault)
    await use(first, key, NOW + HOUR)
    expected = [(0, "kimi-k2", 3, 30, 0), (HOUR, "kimi-k2", 1, 10, 0)]
    assert counted(await second.usage(NOW)) == expected
    shared.client.plan = none
    await use(second, key, NOW + HOUR + 1, "kimi-k3")
    assert counted(await first.usage(NOW)) == [*expected, (HOUR, "kimi-k3", 1, 10, 0)]
    hot = await shared.hot(key)
    assert "o" not in hot
    assert sum(name[0] == "q" for name in hot) == 2


async def test_usage_that_comes_late_is_added_to_its_hour(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(None)
    await use(store, key, NOW)
    await use(store, key, NOW + HOUR)
    await use(store, key, NOW + 5)
    await use(store, key, NOW + HOUR + 5)
    assert counted(await store.usage(NOW)) == [(0, "kimi-k2", 2, 20, 0), (HOUR, "kimi-k2", 2, 20, 0)]
    assert sum(name[0] == "q" for name in await shared.hot(key)) == 1


async def test_many_that_meet_a_new_hour_move_the_last_one_once(shared: SharedTable) -> None:
    key = await shared.key(None)
    await use(shared.stores[0], key, NOW, times=5)
    late = await shared.stores[0].admit("late", key, 1, NOW + HOUR + LEASE, NOW + HOUR - 1)

    async def settle_late() -> None:
        assert await shared.stores[3].settle(late, "kimi-k2", Usage(10, 1), NOW + HOUR - 1)

    steps = [partial(use, store, key, NOW + HOUR + n, f"kimi-{n}") for n, store in enumerate(shared.stores)]
    steps += [partial(use, store, key, NOW + HOUR + n, "kimi-k2", 4) for n, store in enumerate(shared.stores)]
    await asyncio.gather(*(step() for step in steps), settle_late())
    rows = await shared.stores[0].usage(NOW)
    assert counted(rows)[0] == (0, "kimi-k2", 6, 60, 0)
    assert sum(row.requests for row in rows) == 6 + 4 + 16


async def test_an_account_with_many_rows_is_moved_in_parts(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(None)
    for number in range(25):
        await use(store, key, NOW, f"model-{number}")
    for number in range(3):
        await use(store, key, NOW + HOUR + number)
    assert sum(name[0] == "q" for name in await shared.hot(key)) == 1
    assert sum(row.requests for row in await store.usage(NOW)) == 28
