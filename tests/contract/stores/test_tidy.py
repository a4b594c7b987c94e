"""DynamoDB alone: what its images of items are good for, and what it leaves in an item."""

from __future__ import annotations

import random

import pytest

from kimi_gateway.accounts.store import NoCredit
from kimi_gateway.accounts.values import Grant, NewKey, Usage
from kimi_gateway.storage.dynamodb.item import kid
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("shared", ["dynalite"], indirect=True)]


def names(item: dict[str, object], letters: str) -> list[str]:
    return sorted(name for name in item if name[0] in letters and len(name) > 2)


async def test_counters_of_windows_before_the_last_leave_the_item(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(None)
    other = await store.create_key(NewKey("other", key.account), NOW)
    for now in (NOW, NOW + 60, NOW + 120):
        await store.admit(f"r{now}", key, 1, now + LEASE, now)
        await store.admit(f"o{now}", other, 1, now + LEASE, now)
    assert len(names(await shared.hot(key), "m")) == 4
    later = NOW + 3 * 86_400
    for store in shared.stores[1:3]:  # a store that has no image yet sweeps at its second request
        await store.admit(f"x{id(store)}", key, 1, later + LEASE, later)
        await store.admit(f"y{id(store)}", key, 1, later + LEASE, later)
    assert len(names(await shared.hot(key), "mhd")) == 3


async def test_an_instance_that_meets_an_unlimited_account_first_by_an_admission_admits(
    shared: SharedTable,
) -> None:
    key = await shared.key(None)
    admission = await shared.stores[1].admit("r", key, 1, NOW + LEASE, NOW)
    assert (admission.cost, admission.spendable) == (0, None)


async def test_the_first_look_at_a_key_tells_an_instance_what_its_admission_needs(
    shared: SharedTable,
) -> None:
    key = await shared.key(None)
    store = shared.stores[1]
    found = await store.find_key(key.digest)
    assert found == key
    shared.client.calls.clear()
    await store.admit("r", found, 1, NOW + LEASE, NOW)
    assert shared.client.calls == {"UpdateItem": 1}


async def test_purging_looks_only_at_accounts_that_were_seen_with_a_lease_that_is_over(
    shared: SharedTable,
) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(10))
    for number in range(3):
        await ours.admit(f"r{number}", key, 1, NOW + LEASE, NOW)
    shared.client.calls.clear()
    assert await theirs.purge(NOW + LEASE) == 0
    assert await ours.purge(NOW + LEASE - 1) == 0
    assert shared.client.calls == {}
    assert await ours.purge(NOW + LEASE) == 3
    shared.client.calls.clear()
    assert await ours.purge(NOW + LEASE) == 0
    assert shared.client.calls == {}
    assert (await theirs.account(key.account, NOW + LEASE)).credits == 10


async def test_leases_that_another_instance_ended_cost_a_purge_one_read(shared: SharedTable) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(10))
    admission = await ours.admit("r", key, 1, NOW + LEASE, NOW)
    assert await theirs.settle(admission, "kimi-k2", Usage(), NOW)
    shared.client.calls.clear()
    assert await ours.purge(NOW + LEASE) == 0
    assert shared.client.calls == {"GetItem": 1}


async def test_a_hundred_leases_of_a_dead_instance_come_back_in_parts(shared: SharedTable) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(120))
    for number in range(120):
        await ours.admit(f"r{number}", key, 1, NOW + LEASE, NOW)
    with pytest.raises(NoCredit):
        await theirs.admit("x", key, 1, NOW + 2 * LEASE, NOW + LEASE - 1)
    assert (await theirs.admit("x", key, 110, NOW + 2 * LEASE, NOW + LEASE)).cost == 110
    assert (await theirs.account(key.account, NOW + LEASE)).credits == 120


@pytest.mark.parametrize("credits", [Grant(10), None], ids=["with credits", "unlimited"])
async def test_a_lease_that_is_over_is_ended_by_the_accounts_next_request(
    shared: SharedTable, credits: Grant | None
) -> None:
    """Whatever instance took it: on Lambda nothing else looks for it."""
    ours, theirs = shared.stores[:2]
    key = await shared.key(credits)
    await ours.admit("lost", key, 1, NOW + LEASE, NOW)
    for now, left in ((NOW + LEASE - 1, 1), (NOW + LEASE, 0)):
        admission = await theirs.admit(f"r{now}", key, 1, now + LEASE, now)
        assert await theirs.release(admission, "kimi-k2", False, now)
        assert len(names(await shared.hot(key), "r")) == left
    account = await ours.account(key.account, NOW + LEASE)
    assert (account.credits, account.reserved) == (10 if credits else 0, 0)


async def test_a_request_ends_fifty_leases_in_one_write_and_leaves_the_rest(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(Grant(200))
    for number in range(120):
        await store.admit(f"lost{number}", key, 1, NOW + LEASE, NOW)
    for left in (70, 20, 0):
        admission = await store.admit(f"r{left}", key, 1, NOW + 2 * LEASE, NOW + LEASE)
        shared.client.calls.clear()
        assert await store.settle(admission, "kimi-k2", Usage(), NOW + LEASE)
        assert len(names(await shared.hot(key), "r")) == left
        assert shared.client.calls == {"UpdateItem": 2, "GetItem": 1}  # the last is this test's look
    assert (await store.account(key.account, NOW + LEASE)).credits == 197


async def test_a_busy_account_does_not_stop_its_leases_from_ending(shared: SharedTable) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(50))
    await ours.admit("lost", key, 7, NOW + LEASE, NOW)
    admission = await theirs.admit("r", key, 1, NOW + 2 * LEASE, NOW + LEASE)
    taken = iter(range(100))

    async def meddle() -> None:
        await ours.admit(f"m{next(taken)}", key, 1, NOW + 2 * LEASE, NOW + LEASE)

    shared.client.before = meddle
    assert await theirs.settle(admission, "kimi-k2", Usage(), NOW + LEASE)
    shared.client.before = None
    account = await ours.account(key.account, NOW + LEASE)
    assert (account.credits, account.reserved) == (49, next(taken))


async def test_an_account_is_shown_as_it_is_without_a_write(shared: SharedTable) -> None:
    store = shared.stores[0]
    key = await shared.key(Grant(10, NOW + LEASE))
    await store.grant(key.account, Grant(5), NOW)
    await store.admit("lost", key, 3, NOW + LEASE, NOW)
    shared.client.calls.clear()
    before = await store.account(key.account, NOW + LEASE - 1)
    after = await store.account(key.account, NOW + LEASE)
    assert (before.credits, before.reserved, before.expired) == (15, 3, 0)
    assert (after.credits, after.reserved, after.expired) == (
        8,
        0,
        7,
    )  # the lease held credits of the older grant
    assert set(shared.client.calls) <= {"GetItem", "Query"}


async def test_all_accounts_are_reported_however_many_there_are(shared: SharedTable) -> None:
    store = shared.stores[0]
    made = [await store.create_account(f"a{number}", None, NOW + number) for number in range(40)]
    assert await store.accounts(NOW) == made


async def test_many_leases_are_renewed_together(shared: SharedTable) -> None:
    store, key = shared.stores[0], await shared.key(Grant(120))
    held = [await store.admit(f"r{number}", key, 1, NOW + LEASE, NOW) for number in range(60)]
    for admission in held[:3]:
        await store.settle(admission, "kimi-k2", Usage(), NOW)
    shared.client.calls.clear()
    await store.renew(held, NOW + 2 * LEASE)
    assert shared.client.calls["UpdateItem"] <= 3
    assert await store.purge(NOW + LEASE) == 0
    assert (await store.account(key.account, NOW + LEASE)).reserved == 57


async def test_a_lease_that_is_renewed_while_it_is_purged_lives(shared: SharedTable) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(10))
    admission = await ours.admit("r", key, 1, NOW + LEASE, NOW)
    await theirs.account(key.account, NOW)

    async def renew() -> None:
        shared.client.before = None
        await ours.renew([admission], NOW + 3 * LEASE)

    shared.client.before = renew
    assert await theirs.purge(NOW + LEASE) == 0
    assert await ours.settle(admission, "kimi-k2", Usage(), NOW)


async def test_an_account_never_runs_out_of_short_ids(shared: SharedTable) -> None:
    """Of ids with four characters there are 16 short ones of two, so most of these keys get one of four."""
    chance = random.Random(1)
    store = DynamoStore(shared.name, shared.aws, below=lambda most: chance.randrange(4))
    account = await store.create_account("a", Grant(100), NOW)
    made = []
    for number in range(24):
        made.append(await store.create_key(NewKey(f"d{number}", account.id), NOW))
        if number % 2:
            await store.revoke_key(made[-1].id, NOW)
    assert len({kid(key.id) for key in made}) == 24
    for number, key in enumerate(made[::2]):
        current = await store.find_key(key.digest)
        assert current is not None
        for now in (NOW, NOW + 3 * 60):
            admission = await store.admit(f"r{number}{now}", current, 1, now + LEASE, now)
            assert admission.window is not None
            assert admission.window.remaining == 19
            await store.settle(admission, "kimi-k2", Usage(1, 1), now)
    rows = await store.usage(0, account.id)
    assert {(row.key, row.model, row.requests) for row in rows} == {
        (key.id, "kimi-k2", 2) for key in made[::2]
    }
    hot = await shared.hot(made[0])
    minutes = [name for name in hot if name[0] == "M"]
    assert len(minutes) <= 13  # those of three minutes ago are gone, but for the last one that was admitted
