"""Every store: changes of a balance that are made once, counts of events, and a bound of keys."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import Store, StoreDown, Taken, TooManyKeys, Unknown, Unlimited
from kimi_gateway.accounts.values import Balance, Grant, NewKey, Usage
from kimi_gateway.net.aws import Patience
from kimi_gateway.net.http import Timeouts
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support import dynamo
from support.dynamo_table import SharedTable
from support.faulty import Fault, in_turn, none
from support.store_client import NOW, MakeClient

pytestmark = pytest.mark.anyio


def adding(credits: int, expires: int | None = None) -> partial[Balance]:
    grant = Grant(credits) if expires is None else Grant(credits, expires)
    return partial(rules.granted, grant=grant, now=NOW)


def taking(credits: int) -> partial[Balance]:
    return partial(rules.taken, most=credits, now=NOW)


async def test_an_account_is_opened_with_its_key_or_not_at_all(store: Store) -> None:
    opened = await store.open_account(Grant(7), NewKey("d1", "", "laptop"), NOW, "acc_host")
    (key,) = opened.keys
    assert (opened.name, opened.credits, opened.invited_by, key.account) == ("", 7, "acc_host", opened.id)
    assert await store.find_key("d1") == key
    assert await store.account(opened.id, NOW) == opened
    with pytest.raises(Taken):
        await store.open_account(Grant(7), NewKey("d1", ""), NOW)
    assert await store.accounts(NOW) == [opened]
    await store.settle(await store.admit("r", key, 1, NOW + 60, NOW), "kimi-k3", Usage(1, 1), NOW)
    assert (await store.account(opened.id, NOW)).credits == 6


async def test_a_change_of_one_name_is_made_once(store: Store, client: MakeClient) -> None:
    alice, bob = await client(credits=10), await client(credits=10)
    assert await store.funded(alice.id, "p1") is None
    assert await store.fund(alice.id, "p1", adding(5), NOW)
    assert not await store.fund(alice.id, "p1", adding(5), NOW)
    assert not await store.fund(alice.id, "p1", adding(900), NOW + 10**7)
    assert await store.fund(alice.id, "p2", adding(7, NOW + 50), NOW)
    assert await store.fund(bob.id, "p1", adding(1), NOW)
    assert [await store.funded(alice.id, name) for name in ("p1", "p2", "p3")] == [5, 7, None]
    assert (await alice.account()).grants == (Grant(7, NOW + 50), Grant(15))
    assert await bob.spendable() == 11


async def test_credits_are_taken_once_and_never_more_than_are_left(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    running = await alice.admit(cost=4)
    assert await store.fund(alice.id, "refund", taking(9), NOW)
    assert not await store.fund(alice.id, "refund", taking(9), NOW)
    assert await store.funded(alice.id, "refund") == -6
    assert await alice.spendable() == 0
    await alice.release(running)
    assert await alice.spendable() == 4
    assert await store.fund(alice.id, "again", taking(9), NOW)
    assert await alice.spendable() == 0


async def test_more_credits_open_windows_of_a_lower_tier(store: Store, client: MakeClient) -> None:
    alice = await client(credits=100)
    for _ in range(20):
        await alice.admit(cost=0)
    assert await store.fund(alice.id, "p1", adding(5_000), NOW)
    window = (await alice.admit()).window
    assert window is not None
    assert window.limit == 200


async def test_a_change_that_refuses_leaves_no_trace(store: Store, client: MakeClient) -> None:
    alice, free = await client(credits=10), await client(credits=None)
    with pytest.raises(rules.TooMuch):
        await store.fund(alice.id, "p1", partial(rules.deducted, credits=11, now=NOW), NOW)
    assert await store.funded(alice.id, "p1") is None
    assert await store.fund(alice.id, "p1", adding(1), NOW)
    with pytest.raises(Unlimited):
        await store.fund(free.id, "p1", adding(1), NOW)
    for step in (store.fund("acc_0000000000", "p", adding(1), NOW), store.funded("acc_0000000000", "p")):
        with pytest.raises(Unknown):
            await step


async def test_expired_grants_do_not_come_back(store: Store, client: MakeClient) -> None:
    alice = await client(credits=Grant(10, NOW + 50))
    alice.now = NOW + 50
    assert await store.fund(alice.id, "p1", partial(rules.granted, grant=Grant(3), now=alice.now), alice.now)
    account = await alice.account()
    assert (account.credits, account.expired, account.grants) == (3, 10, (Grant(3),))
    assert await store.funded(alice.id, "p1") == 3


async def test_one_of_many_at_once_makes_the_change(store: Store, client: MakeClient) -> None:
    alice = await client(credits=10)
    made = await asyncio.gather(*(store.fund(alice.id, f"p{n % 3}", adding(5), NOW) for n in range(12)))
    assert (sum(made), await alice.spendable()) == (3, 25)


async def test_events_are_counted_up_to_a_bound_until_their_time(store: Store) -> None:
    until = NOW + 60
    counted = [await store.tally("day/1", 3, until, NOW + second) for second in range(5)]
    assert counted == [True, True, True, False, False]
    assert await store.tally("day/2", 3, until + 60, NOW + 60)
    assert not await store.tally("none", 0, until, NOW)


async def test_an_account_has_so_many_keys_that_are_not_revoked(store: Store, client: MakeClient) -> None:
    alice = await client()
    made = [await store.create_key(NewKey(f"n{n}", alice.id), NOW, most=3) for n in range(2)]
    for _ in range(2):
        with pytest.raises(TooManyKeys):
            await store.create_key(NewKey("more", alice.id), NOW, most=3)
    assert await store.find_key("more") is None
    await store.create_key(NewKey("operator", alice.id), NOW)
    await store.revoke_key(made[0].id, NOW)
    with pytest.raises(TooManyKeys):
        await store.create_key(NewKey("more", alice.id), NOW, most=3)
    await store.revoke_key(made[1].id, NOW)
    assert (await store.create_key(NewKey("more", alice.id), NOW, most=3)).account == alice.id
    results = await asyncio.gather(
        *(store.create_key(NewKey(f"c{n}", alice.id), NOW, most=5) for n in range(6)), return_exceptions=True
    )
    assert sum(isinstance(each, TooManyKeys) for each in results) == 4
    assert sum(not key.revoked for key in (await alice.account()).keys) == 5


async def test_an_account_keeps_who_invited_it(store: Store) -> None:
    host = await store.create_account("host", Grant(1), NOW)
    guest = await store.create_account("", Grant(1), NOW, host.id)
    assert (host.invited_by, guest.invited_by) == ("", host.id)
    assert (await store.account(guest.id, NOW)).invited_by == host.id


async def test_nothing_is_left_of_the_changes_of_a_deleted_account(store: Store, client: MakeClient) -> None:
    alice = await client()
    await store.fund(alice.id, "p1", adding(1), NOW)
    await store.delete_account(alice.id)
    with pytest.raises(Unknown):
        await store.fund(alice.id, "p1", adding(1), NOW)


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.LOST_BEFORE, Fault.LOST_AFTER])
@pytest.mark.parametrize("operation", ["GetItem", "PutItem", "UpdateItem"])
async def test_a_change_is_made_once_wherever_its_process_dies(
    shared: SharedTable, operation: str, fault: Fault
) -> None:
    patience = Patience(tries=1, total=60, pause=0, each=Timeouts(30, 30))
    dying = DynamoStore(shared.name, dynamo.aws(shared.url, shared.client, patience))
    for calls in range(4):
        alice = await shared.stores[0].create_account("", Grant(10), NOW)
        shared.client.plan = in_turn(*[None] * calls, *[fault] * 30, operation=operation)
        made: list[object] = []
        try:
            made.append(await dying.fund(alice.id, "p", adding(5), NOW))
        except StoreDown:
            made.append(StoreDown)
        shared.client.plan = none
        for later, store in enumerate((shared.stores[0], dying, shared.stores[1])):
            if later == 1:
                await store.fund(alice.id, "other", adding(1), NOW)
            made.append(await store.fund(alice.id, "p", adding(5), NOW + later * 10**6))
        account = await shared.stores[0].account(alice.id, NOW)
        assert account.credits == 16, (calls, made)
        assert made[1:] in ([True, False, False], [False, False, False])
        assert await shared.stores[0].funded(alice.id, "p") == 5
