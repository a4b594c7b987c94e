"""What the holder of a key sees, and sums of usage: the same on every store, exact, and cheap to read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from kimi_gateway.accounts import usage
from kimi_gateway.accounts.store import KeyStale, Store
from kimi_gateway.accounts.values import Budget, Grant, Limits, NewKey, Unit, Usage
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW, Client, MakeClient

pytestmark = pytest.mark.anyio
HOUR, DAY = 3_600, 86_400
SPENT = Usage(input=10, output=2, cached=4, cost=7, saved=3, fees=1)


async def use(client: Client, model: str, now: int) -> None:
    client.now = now
    assert await client.store.settle(await client.admit(), model, SPENT, now)


async def test_sums_are_those_of_the_rows(store: Store, client: MakeClient) -> None:
    alice, bob = await client(), await client()
    for number, at in enumerate((NOW, NOW + HOUR, NOW + DAY, NOW + DAY + HOUR)):
        await use(alice, f"m{number % 2}", at + number)
        await use(bob, "m0", at)
    assert await store.release(await alice.admit(), "m1", True, NOW + DAY + HOUR + 9, cause="rate")
    rows = await store.usage(NOW)
    for by in ((), ("hour",), ("day",), ("model",), ("key",), ("account",), ("day", "account", "model")):
        assert await store.usage_sums(NOW, by) == usage.summed(rows, by), by
        mine = [row for row in rows if row.account == alice.id]
        assert await store.usage_sums(NOW, by, alice.id) == usage.summed(mine, by), by
    (whole,) = usage.summed(rows, ())
    assert (whole.requests, whole.errors, whole.cost, whole.causes) == (8, 1, 56, (("rate", 1),))
    assert (whole.last, whole.last_cost) == (NOW + DAY + HOUR + 9, 0)
    assert await store.usage_sums(NOW + 2 * DAY, ()) == []
    await use(alice, "m0", NOW + 20 * DAY)  # a long time, which SQLite sums in parts
    for by in ((), ("day", "model"), ("account",)):
        assert await store.usage_sums(NOW, by) == usage.summed(await store.usage(NOW), by), by


async def test_an_overview_has_the_balance_the_windows_and_the_usage(
    store: Store, client: MakeClient
) -> None:
    alice, bob = await client(credits=50), await client(credits=70)
    await use(bob, "m", NOW)
    await use(alice, "m", NOW)
    await use(alice, "n", NOW + HOUR)
    running = await alice.admit()
    seen = await store.overview(alice.key, NOW, NOW + HOUR)
    whole = await store.account(alice.id, NOW + HOUR)
    assert seen.account == replace(whole, name="", created=seen.account.created, keys=(alice.key,))
    assert [(row.hour, row.requests, row.cost) for row in seen.usage] == [(NOW, 1, 7), (NOW + HOUR, 1, 7)]
    assert [(each.size, each.limit, each.remaining) for each in seen.windows] == [
        (60, 20, 18), (HOUR, 600, 598), (DAY, 5_000, 4_997)
    ]  # fmt: skip
    assert sum(row.credits for row in seen.usage) == seen.account.consumed == 2
    assert await alice.settle(running)
    assert len((await store.overview(alice.key, NOW + HOUR, NOW + HOUR)).usage) == 1


async def test_an_overview_shows_the_budgets_of_its_key_only(store: Store, client: MakeClient) -> None:
    alice = await client()
    day: tuple[Unit, ...] = get_args(Unit)
    other = await store.create_key(
        NewKey("other", alice.id, budgets=(Budget("usd", "day", 5),), limits=Limits(1, 2, 3)), NOW
    )
    await store.set_budgets(alice.id, [Budget("tokens", "week", 9)], NOW)
    for name, count in ((alice.key.digest, 1), (other.digest, 2)):
        key = await store.find_key(name)
        assert key is not None
        seen = await store.overview(key, NOW, NOW)
        assert len(seen.account.spent) == count
        assert seen.account.keys == (key,)
    assert [window.limit for window in seen.windows] == [1, 2, 3]
    assert day


async def test_an_overview_refuses_an_outdated_key(store: Store, client: MakeClient) -> None:
    alice = await client()
    changed = await store.update_key(alice.key.id, lambda key: replace(key, name="b"), NOW)
    with pytest.raises(KeyStale):
        await store.overview(alice.key, NOW, NOW)
    assert (await store.overview(changed, NOW, NOW)).account.id == alice.id
    revoked = await store.revoke_key(alice.key.id, NOW)
    with pytest.raises(KeyStale):
        await store.overview(revoked, NOW, NOW)
    await store.delete_account(alice.id)
    with pytest.raises(KeyStale):
        await store.overview(changed, NOW, NOW)


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
async def test_an_overview_costs_two_reads_and_one_query(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(Grant(9))
    for number, now in enumerate((NOW, NOW + HOUR)):
        admission = await store.admit(f"r{number}", key, 1, now + LEASE, now)
        assert await store.settle(admission, "m", SPENT, now)
    shared.client.calls.clear()
    seen = await shared.stores[1].overview(key, NOW, NOW + HOUR)
    assert shared.client.calls == {"GetItem": 2, "Query": 1}
    assert [row.requests for row in seen.usage] == [1, 1]


async def test_an_overview_beside_busy_requests_is_exact(store: Store, client: MakeClient) -> None:
    alice = await client(credits=60)

    async def spend(number: int) -> None:
        admission = await alice.admit(f"r{number}")
        assert await alice.settle(admission, SPENT)

    for start in range(0, 18, 6):
        await asyncio.gather(*(spend(number) for number in range(start, start + 6)))
        seen = await store.overview(alice.key, NOW, NOW)
        assert sum(row.credits for row in seen.usage) == seen.account.consumed == start + 6
