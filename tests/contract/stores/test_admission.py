"""Every store: who is admitted, what refuses, and that each reservation ends exactly once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kimi_gateway.accounts.store import KeyStale, NoCredit, Store, WindowFull
from kimi_gateway.accounts.values import Grant, Limits, NewKey, Usage, Window
from support.store_client import LEASE, NOW, MakeClient, one_of_each

pytestmark = pytest.mark.anyio

WIDE = Limits(10**6, 10**6, 10**6)


async def test_an_admission_shows_the_balance_and_the_minute_after_it(client: MakeClient) -> None:
    alice = await client(credits=100)
    admission = await alice.admit("first")
    assert (admission.id, admission.key, admission.cost) == ("first", alice.key, 1)
    assert (admission.expires, admission.spendable) == (NOW + LEASE, 99)
    assert admission.window == Window(limit=20, remaining=19, reset=NOW + 60)


@pytest.mark.parametrize(
    ("credits", "rpm"),
    [(1, 20), (100, 20), (101, 60), (1_000, 60), (1_001, 200), (10_000, 200), (10_001, 500)],
)
async def test_the_tier_is_that_of_the_balance_before_the_reservation(
    client: MakeClient, credits: int, rpm: int
) -> None:
    admission = await (await client(credits)).admit()
    assert admission.window == Window(rpm, rpm - 1, NOW + 60)


async def test_an_account_without_credits_is_refused(client: MakeClient) -> None:
    with pytest.raises(NoCredit):
        await (await client(credits=0)).admit()


async def test_a_request_may_cost_all_there_is_but_not_more(client: MakeClient) -> None:
    alice = await client(credits=5)
    with pytest.raises(NoCredit):
        await alice.admit(cost=6)
    assert (await alice.admit(cost=5)).spendable == 0


async def test_a_free_request_needs_no_credit(client: MakeClient) -> None:
    admission = await (await client(credits=0)).admit(cost=0)
    assert admission.window == Window(20, 19, NOW + 60)


async def test_an_admission_repeated_under_its_id_is_the_same_one(client: MakeClient) -> None:
    alice = await client(credits=101)
    first = await alice.admit("r")
    assert await alice.admit("r") == first
    await alice.admit("other")
    alice.now += 5
    again = await alice.admit("r")
    assert (again.id, again.cost, again.expires) == ("r", 1, first.expires)
    account = await alice.account()
    assert (account.credits, account.reserved) == (101, 2)


async def test_a_request_id_belongs_to_its_account(client: MakeClient) -> None:
    alice, bob = await client(credits=10), await client(credits=20)
    await alice.admit("r")
    assert (await bob.admit("r")).spendable == 19


@one_of_each
async def test_concurrent_admissions_are_counted_one_by_one(client: MakeClient) -> None:
    alice = await client(limits=Limits(minute=20))
    outcomes = await asyncio.gather(*(alice.admit() for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, WindowFull) for outcome in outcomes) == 30
    assert await alice.spendable() == 80


async def test_a_settled_reservation_is_consumed_once(client: MakeClient) -> None:
    alice = await client(credits=10)
    admission = await alice.admit(cost=3)
    outcomes = await asyncio.gather(*(alice.settle(admission) for _ in range(3)))
    assert sorted(outcomes) == [False, False, True]
    assert not await alice.release(admission)
    account = await alice.account()
    assert (account.credits, account.reserved, account.consumed) == (7, 0, 3)


async def test_a_released_reservation_comes_back_once(client: MakeClient) -> None:
    alice = await client(credits=10)
    admission = await alice.admit(cost=3)
    outcomes = await asyncio.gather(*(alice.release(admission) for _ in range(3)))
    assert sorted(outcomes) == [False, False, True]
    assert not await alice.settle(admission)
    account = await alice.account()
    assert (account.credits, account.reserved, account.consumed) == (10, 0, 0)


async def test_a_revoked_key_is_stale_at_once(store: Store, client: MakeClient) -> None:
    alice = await client()
    await store.revoke_key(alice.key.id, NOW)
    with pytest.raises(KeyStale):
        await alice.admit()
    current = await store.find_key(alice.key.digest)
    assert current is not None
    assert current.revoked
    alice.key = current
    with pytest.raises(KeyStale):
        await alice.admit()


async def test_revoking_one_key_makes_records_of_its_siblings_stale_until_read_again(
    store: Store, client: MakeClient
) -> None:
    alice = await client()
    sibling = await store.create_key(NewKey("sibling", alice.id), NOW)
    await store.revoke_key(sibling.digest, NOW)
    with pytest.raises(KeyStale):
        await alice.admit()
    alice.key = await store.find_key(alice.key.digest) or alice.key
    assert (await alice.admit()).spendable == 99


async def test_a_request_admitted_before_the_revocation_is_finished(store: Store, client: MakeClient) -> None:
    alice = await client()
    admission = await alice.admit("r")
    await store.revoke_key(alice.key.id, NOW)
    assert await alice.admit("r") == admission
    assert await alice.settle(admission)


async def test_a_key_that_the_store_does_not_know_is_stale(client: MakeClient) -> None:
    alice = await client()
    for unknown in (replace(alice.key, account="acc_0000000000"), replace(alice.key, id="key_0000000000")):
        alice.key = unknown
        with pytest.raises(KeyStale):
            await alice.admit()


async def test_lack_of_credit_is_reported_before_a_full_window(client: MakeClient) -> None:
    alice = await client(credits=1, limits=Limits(minute=1))
    await alice.spend(1)
    with pytest.raises(NoCredit):
        await alice.admit()


@pytest.mark.parametrize(
    ("own", "length"),
    [(Limits(minute=2), 60), (Limits(9, hour=2), 3_600), (Limits(9, 9, day=2), 86_400)],
)
async def test_each_window_refuses_at_its_limit_and_opens_when_it_ends(
    client: MakeClient, own: Limits, length: int
) -> None:
    alice = await client(limits=own)
    alice.now = NOW + length - 2
    await alice.admit()
    alice.now = NOW + length - 1
    await alice.admit()
    with pytest.raises(WindowFull) as refused:
        await alice.admit()
    assert refused.value.window == Window(limit=2, remaining=0, reset=NOW + length)
    alice.now = NOW + length
    admission = await alice.admit()
    assert admission.window is not None
    assert admission.window.remaining == (own.minute or 0) - 1


async def test_of_several_full_windows_the_one_that_resets_last_refuses(client: MakeClient) -> None:
    alice = await client(limits=Limits(1, 1, 1))
    await alice.admit()
    with pytest.raises(WindowFull) as refused:
        await alice.admit()
    assert refused.value.window.reset == NOW + 86_400


async def test_a_refused_request_is_not_counted_and_reserves_nothing(client: MakeClient) -> None:
    alice = await client(credits=10, limits=Limits(minute=1, hour=2))
    await alice.admit()
    for _ in range(3):
        with pytest.raises(WindowFull):
            await alice.admit()
    alice.now += 60
    assert (await alice.admit()).spendable == 8


async def test_a_request_of_the_last_minute_that_comes_late_does_not_reopen_this_one(
    client: MakeClient,
) -> None:
    alice = await client(limits=Limits(minute=2), now=NOW + 60)
    await alice.admit()
    await alice.admit()
    alice.now = NOW + 59
    await asyncio.gather(alice.admit(), return_exceptions=True)  # admitted or not: a store may choose
    alice.now = NOW + 60
    with pytest.raises(WindowFull):
        await alice.admit()


async def test_own_limits_replace_their_column_of_the_tier_only(client: MakeClient) -> None:
    alice = await client(credits=20_000, limits=Limits(hour=30))
    for number in range(30):
        admission = await alice.admit()
        assert admission.window == Window(500, 499 - number, NOW + 60)
    with pytest.raises(WindowFull) as refused:
        await alice.admit()
    assert refused.value.window == Window(30, 0, NOW + 3_600)


async def test_windows_are_counted_per_key_and_credits_per_account(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10, limits=Limits(minute=1))
    other = replace(
        alice, key=await store.create_key(NewKey("other", alice.id, limits=Limits(minute=1)), NOW)
    )
    await alice.admit()
    assert (await other.admit("of-the-other-key")).spendable == 8


async def test_an_unlimited_account_has_only_its_keys_own_limits(client: MakeClient) -> None:
    free, slow = await client(credits=None), await client(credits=None, limits=Limits(minute=1))
    for _ in range(30):
        admission = await free.admit()
        assert (admission.cost, admission.spendable, admission.window) == (0, None, None)
    assert (await slow.admit()).window == Window(1, 0, NOW + 60)
    with pytest.raises(WindowFull):
        await slow.admit()


async def test_a_request_of_an_unlimited_account_still_ends_exactly_once(
    store: Store, client: MakeClient
) -> None:
    free = await client(credits=None)
    settled, released = await free.admit("s"), await free.admit("r")
    assert await free.admit("s") == settled
    assert [await free.settle(settled, Usage(7, 5)) for _ in range(2)] == [True, False]
    assert [await free.release(released) for _ in range(2)] == [True, False]
    (row,) = await store.usage(NOW)
    assert (row.requests, row.input, row.output, row.credits) == (1, 7, 5, 0)
    account = await free.account()
    assert (account.unlimited, account.credits, account.reserved, account.consumed) == (True, 0, 0, 0)


async def test_a_lease_ends_at_its_expiry_and_not_a_second_before(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    admission = await alice.admit(cost=4)
    assert await store.purge(NOW + LEASE - 1) == 0
    assert await store.purge(NOW + LEASE) == 1
    assert await store.purge(NOW + LEASE) == 0
    assert not await alice.settle(admission)
    account = await alice.account()
    assert (account.credits, account.reserved) == (10, 0)


async def test_an_account_is_shown_without_its_expired_leases(client: MakeClient) -> None:
    alice = await client(credits=10)
    admission = await alice.admit()
    alice.now += LEASE
    assert (await alice.account()).reserved == 0
    await alice.release(admission)  # whether the look ended the lease is the store's affair


async def test_a_lease_past_its_expiry_can_settle_until_it_is_ended(client: MakeClient) -> None:
    alice = await client()
    admission = await alice.admit()
    alice.now += LEASE + 1
    assert await alice.settle(admission)


async def test_admission_ends_expired_leases_before_it_refuses_for_credit(client: MakeClient) -> None:
    alice = await client(credits=3)
    lost = await alice.admit(cost=2)
    alice.now += 1
    alive = await alice.admit(cost=1)
    alice.now += LEASE - 2
    with pytest.raises(NoCredit):
        await alice.admit()
    alice.now += 1
    assert (await alice.admit(cost=2)).spendable == 0
    assert not await alice.settle(lost)
    assert await alice.settle(alive)


async def test_renewal_extends_living_leases_and_revives_none(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    long, short, settled = await alice.admit(), await alice.admit(), await alice.admit()
    await alice.settle(settled)
    await store.renew([long, settled], NOW + 2 * LEASE)
    await store.renew([long], NOW + 1)  # none is shortened
    assert await store.purge(NOW + LEASE) == 1
    assert not await alice.settle(short)
    assert not await alice.settle(settled)
    assert await alice.settle(long)


async def test_a_reservation_counts_against_the_tier_of_the_next_window(client: MakeClient) -> None:
    alice = await client(credits=Grant(101), limits=replace(WIDE, minute=None))
    first = await alice.admit()
    alice.now += 60
    second = await alice.admit()
    assert (first.window, second.window) == (Window(60, 59, NOW + 60), Window(20, 19, NOW + 120))
