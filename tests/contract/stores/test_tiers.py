"""Every store: each window keeps the tier that it began with, and a grant lifts it at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_gateway.accounts.rules import TooMuch
from kimi_gateway.accounts.store import Ambiguous, NoCredit, Store, Unknown, Unlimited, WindowFull
from kimi_gateway.accounts.values import Grant, Limits, NewKey, Window
from kimi_gateway.net.aws import DYNAMODB
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW, STORES, Client, MakeClient, one_of_each, one_table

pytestmark = pytest.mark.anyio


async def limit(client: Client, cost: int = 1) -> int:
    admission = await client.admit(cost=cost)
    await client.settle(admission)
    assert admission.window is not None
    return admission.window.limit


@pytest.mark.parametrize(
    ("credits", "rpm", "next_rpm"), [(101, 60, 20), (1_001, 200, 60), (10_001, 500, 200)]
)
async def test_a_balance_that_falls_below_its_tier_lowers_the_next_minute_only(
    client: MakeClient, credits: int, rpm: int, next_rpm: int
) -> None:
    alice = await client(credits)
    assert [await limit(alice) for _ in range(3)] == [rpm] * 3
    alice.now += 60
    assert await limit(alice) == next_rpm


@one_of_each
async def test_122_credits_serve_sixty_requests_within_the_minute(client: MakeClient) -> None:
    alice = await client(credits=122)
    assert [await limit(alice) for _ in range(60)] == [60] * 60
    with pytest.raises(WindowFull) as refused:
        await alice.admit()
    assert refused.value.window == Window(60, 0, NOW + 60)


async def test_the_hour_goes_on_with_its_tier_when_the_minutes_have_a_lower_one(tmp_path: Path) -> None:
    for name in ("memory", "sqlite"):
        async with STORES[name](tmp_path, "") as store:
            account = await store.create_account("a", Grant(101), NOW)
            alice = Client(store, account.id, await store.create_key(NewKey("d", account.id), NOW))
            assert await limit(alice) == 60
            for number in range(610):  # the tier of 100 credits has 600 an hour
                alice.now = NOW + 60 + number // 20 * 60
                assert await limit(alice, cost=0) == 20


@pytest.mark.parametrize(("letter", "most", "length"), [("H", 2_000, 3_600), ("D", 20_000, 86_400)])
async def test_the_hour_and_the_day_keep_their_tier_in_the_condition(
    shared: SharedTable, letter: str, most: int, length: int
) -> None:
    key, store = await shared.key(Grant(101), Limits()), shared.stores[0]
    await store.admit("first", key, 1, NOW + LEASE, NOW)
    (name,) = [name for name in await shared.hot(key) if name[0] == letter]
    filled = {
        "TableName": shared.name,
        "Key": {"pk": {"S": f"A#{key.account}"}, "sk": {"S": "-"}},
        "UpdateExpression": "ADD #w :n",
        "ExpressionAttributeNames": {"#w": name},
        "ExpressionAttributeValues": {":n": {"N": str(most - 2)}},
    }
    await shared.aws.call(DYNAMODB, "UpdateItem", filled)
    admission = await store.admit("last", key, 1, NOW + 61 + LEASE, NOW + 61)
    assert admission.window == Window(20, 19, NOW + 120)
    with pytest.raises(WindowFull) as refused:
        await store.admit("over", key, 1, NOW + 61 + LEASE, NOW + 61)
    assert refused.value.window == Window(most, 0, NOW + length)


@one_of_each
async def test_a_grant_lifts_all_windows_of_all_keys_at_once(store: Store, client: MakeClient) -> None:
    alice = await client(credits=100)
    other = replace(alice, key=await store.create_key(NewKey("other", alice.id), NOW))
    for each in (alice, other):
        for number in range(20):
            await each.release(await each.admit(f"{each.key.id}{number}"))
        with pytest.raises(WindowFull):
            await each.admit("too-many")
    await store.grant(alice.id, Grant(950), NOW)
    for each in (alice, other):
        admission = await each.admit(f"{each.key.id}-lifted", cost=500)
        assert admission.window == Window(200, 179, NOW + 60)
    again = await alice.admit("the balance is lower, the window is lifted")
    assert again.window == Window(200, 178, NOW + 60)


async def test_credits_that_come_back_lift_no_window(client: MakeClient) -> None:
    alice = await client(credits=101)
    held = await alice.admit("held")
    alice.now += 60
    assert await limit(alice, cost=0) == 20
    await alice.release(held)
    assert await limit(alice, cost=0) == 20
    alice.now += 60
    assert await limit(alice, cost=0) == 60


async def test_own_limits_are_not_lifted(store: Store, client: MakeClient) -> None:
    alice = await client(credits=100, limits=Limits(2, 10**9, 10**9))
    await limit(alice)
    await store.grant(alice.id, Grant(20_000), NOW)
    assert (await alice.admit()).window == Window(2, 0, NOW + 60)
    with pytest.raises(WindowFull):
        await alice.admit()


@one_of_each
async def test_concurrent_requests_at_the_border_of_a_tier_are_counted_exactly(client: MakeClient) -> None:
    alice = await client(credits=110)
    outcomes = await asyncio.gather(*(alice.admit() for _ in range(70)), return_exceptions=True)
    assert sum(isinstance(each, WindowFull) for each in outcomes) == 10
    assert await alice.spendable() == 50


async def test_what_is_deducted_is_gone_and_never_more_than_can_be_spent(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=Grant(30, NOW + 900))
    await store.grant(alice.id, Grant(20), NOW)
    await alice.admit("reserved", cost=10)
    with pytest.raises(TooMuch) as refused:
        await store.deduct(alice.id, 41, NOW)
    assert refused.value.spendable == 40
    left = await store.deduct(alice.id, 25, NOW)
    assert (left.credits, left.reserved, left.consumed) == (25, 10, 0)
    assert left.grants == (Grant(15),)
    assert (await store.deduct(alice.id, 15, NOW)).credits == 10
    with pytest.raises(NoCredit):
        await alice.admit()
    with pytest.raises(Unknown):
        await store.deduct("acc_0000000000", 1, NOW)
    free = await client(credits=None)
    with pytest.raises(Unlimited):
        await store.deduct(free.id, 1, NOW)


async def test_a_name_of_two_accounts_names_them(store: Store) -> None:
    ids = sorted([(await store.create_account("twice", Grant(1), NOW)).id for _ in range(2)])
    with pytest.raises(Ambiguous) as refused:
        await store.account("twice", NOW)
    assert list(refused.value.accounts) == ids


async def test_a_window_that_begins_in_another_tier_than_was_known_is_still_right(
    shared: SharedTable,
) -> None:
    """Another process spent meanwhile: the guess fails in the condition, and costs one write more."""
    key = await shared.key(Grant(1_100), Limits())
    first, second = shared.stores[:2]
    await first.admit("first", key, 1, NOW + LEASE, NOW)
    await second.admit("second", key, 1_000, NOW + LEASE, NOW)
    shared.client.calls.clear()
    admission = await first.admit("third", key, 1, NOW + 60 + LEASE, NOW + 60)
    assert admission.window == Window(20, 19, NOW + 120)
    assert shared.client.calls["UpdateItem"] == 2
    shared.client.calls.clear()
    await first.admit("fourth", key, 1, NOW + 60 + LEASE, NOW + 60)
    assert shared.client.calls == {"UpdateItem": 1}


@one_table
async def test_a_grant_lifts_more_windows_than_one_write_can(shared: SharedTable) -> None:
    await shared.key(Grant(100), Limits(), keys=17)  # 51 windows, one more than a write takes
    store = shared.stores[0]
    account = await store.account("shared", NOW)
    for each in account.keys:
        await store.admit(each.id, each, 1, NOW + LEASE, NOW)
    await store.grant(account.id, Grant(10_000), NOW)
    for each in account.keys:
        lifted = await store.admit(f"{each.id}-again", each, 1, NOW + LEASE, NOW)
        assert lifted.window == Window(500, 498, NOW + 60)
