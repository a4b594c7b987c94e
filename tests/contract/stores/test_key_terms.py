"""Every store: requests in flight, and keys that another key made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.store import InFlightFull, KeyStale, Store, WindowFull
from kimi_gateway.accounts.values import Bound, Budget, Grant, Key, Limits, NewKey
from support.store_client import LEASE, NOW, Client, MakeClient

pytestmark = pytest.mark.anyio


async def changed(store: Store, client: Client, **wanted: object) -> None:
    client.key = await store.update_key(client.key.id, lambda key: replace(key, **wanted), NOW)  # type: ignore[arg-type]


async def test_the_terms_of_a_key_are_kept(store: Store) -> None:
    account = await store.create_account("alice", None, NOW)
    new = NewKey("d", account.id, in_flight=3, tokens=900, search=False, files=False, manages=True)
    made = await store.create_key(new, NOW)
    assert (made.in_flight, made.tokens, made.search, made.files, made.manages) == (
        3,
        900,
        False,
        False,
        True,
    )
    assert await store.find_key("d") == made
    opened = {"in_flight": None, "tokens": None, "search": True, "files": True, "manages": False}
    after = await store.update_key(made.id, lambda key: replace(key, **opened), NOW)
    assert after == replace(made, **opened, generation=1)  # type: ignore[arg-type]
    assert await store.find_key("d") == after


@pytest.mark.parametrize("end", ["settle", "release"])
async def test_a_key_has_so_many_requests_in_flight(store: Store, client: MakeClient, end: str) -> None:
    alice = await client()
    sibling = await store.create_key(NewKey("sibling", alice.id), NOW)
    running = [await alice.admit() for _ in range(2)]
    await changed(store, alice, in_flight=2)
    first, _ = await alice.admit(), await alice.admit()
    with pytest.raises(InFlightFull) as full:
        await alice.admit()
    assert full.value.limit == 2
    again = await store.admit(first.id, alice.key, 1, NOW + LEASE, NOW)  # the same request
    assert again.id == first.id
    await getattr(alice, end)(running[0])  # it is from before the bound
    with pytest.raises(InFlightFull):
        await alice.admit()
    assert await getattr(alice, end)(first)
    assert not await getattr(alice, end)(first)
    await alice.admit()
    with pytest.raises(InFlightFull):
        await alice.admit()
    account = await alice.account()
    assert (account.reserved, account.credits - account.reserved) == (3, 97 - account.consumed)
    found = await store.find_key(sibling.digest)
    assert found is not None
    alice.key = found
    await alice.admit()


async def test_requests_of_dead_processes_are_in_flight_until_their_leases_end(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=10)
    await changed(store, alice, in_flight=2)
    for _ in range(2):
        await alice.admit(cost=3)
    alice.now += LEASE - 1
    with pytest.raises(InFlightFull):
        await alice.admit()
    alice.now += 1
    admission = await alice.admit()
    assert admission.spendable == 9
    await alice.admit()
    with pytest.raises(InFlightFull):
        await alice.admit()
    alice.now += LEASE
    await store.purge(alice.now)
    assert await alice.spendable() == 10


async def with_child(
    store: Store, client: MakeClient, new: NewKey | None = None, **maker: object
) -> tuple[Client, Client]:
    alice = await client()
    await changed(store, alice, **maker)
    wanted = replace(new or NewKey("", ""), digest="child", account=alice.id, made_by=alice.key.id)
    return alice, replace(alice, key=await store.create_key(wanted, NOW))


async def test_a_made_key_counts_in_the_windows_of_its_maker(store: Store, client: MakeClient) -> None:
    new = NewKey("", "", limits=Limits(minute=2))
    alice, child = await with_child(store, client, new, limits=Limits(minute=3))
    assert child.key.maker == alice.key
    windows = [(await each.admit()).window for each in (alice, child)]
    assert [window.remaining for window in windows if window] == [2, 1]
    await child.admit()
    for each in (alice, child):
        with pytest.raises(WindowFull) as full:
            await each.admit()
        assert full.value.window.remaining == 0
    child.now = alice.now = NOW + 60
    for _ in range(2):
        await child.admit()
    with pytest.raises(WindowFull) as full:
        await child.admit()
    assert full.value.window.limit == 2
    await alice.admit()
    with pytest.raises(WindowFull):
        await alice.admit()


async def test_a_made_key_counts_in_the_tier_of_its_maker(store: Store, client: MakeClient) -> None:
    alice, child = await with_child(store, client)
    for _ in range(10):
        await alice.admit()
        await child.admit()
    for each in (alice, child):
        with pytest.raises(WindowFull):
            await each.admit()
    await store.grant(alice.id, Grant(1_000), NOW)
    await child.admit()


async def test_a_made_key_spends_the_budgets_of_its_maker(store: Store, client: MakeClient) -> None:
    mine = NewKey("", "", budgets=(Budget("tokens", "day", 500),))
    alice, child = await with_child(store, client, mine, budgets=(Budget("tokens", "day", 1_000),))
    bound = Bound(NOW, 100, 200, 100, 0)

    async def exhaust(client: Client) -> None:
        for number in range(20):
            await store.admit(f"{client.key.id}{number}", client.key, 0, NOW + LEASE, NOW, bound)

    with pytest.raises(BudgetFull) as full:
        await exhaust(child)
    assert full.value.meter.scope == child.key.id
    with pytest.raises(BudgetFull) as full:
        await exhaust(alice)
    assert full.value.meter.scope == alice.key.id
    spent = {each.scope: each.amount for each in (await alice.account()).spent}
    assert spent[child.key.id] <= 500
    assert spent[child.key.id] < spent[alice.key.id] <= 1_000


async def test_requests_of_a_made_key_are_in_flight_for_its_maker_too(
    store: Store, client: MakeClient
) -> None:
    alice, child = await with_child(store, client, NewKey("", "", in_flight=2), in_flight=3)
    first = await child.admit()
    await child.admit()
    with pytest.raises(InFlightFull) as full:
        await child.admit()
    assert full.value.limit == 2
    await alice.admit()
    await child.settle(first)
    await alice.admit()
    with pytest.raises(InFlightFull) as full:
        await child.admit()
    assert full.value.limit == 3


RIGHTS = {
    "suspended": ({"suspended": True}, lambda key: terms.refusal(key, NOW) is not None),
    "expired": ({"expires": NOW}, lambda key: terms.refusal(key, NOW) is not None),
    "models": ({"models": ("kimi-k2*",)}, lambda key: not terms.allows(key, ["kimi-k3"])),
    "search": ({"search": False}, lambda key: not terms.may_search(key)),
    "files": ({"files": False}, lambda key: not terms.may_use_files(key)),
    "tokens": ({"tokens": 9}, lambda key: terms.tokens(key) == 9),
}


@pytest.mark.parametrize("right", RIGHTS)
async def test_what_its_maker_loses_a_made_key_loses_at_once(
    store: Store, client: MakeClient, right: str
) -> None:
    alice, child = await with_child(store, client)
    wanted, lost = RIGHTS[right]
    assert not lost(child.key)
    await changed(store, alice, **wanted)
    with pytest.raises(KeyStale):
        await child.admit()
    found = await store.find_key("child")
    assert found is not None
    assert lost(found)
    assert found in (await alice.account()).keys


async def test_a_made_key_ends_with_its_maker(store: Store, client: MakeClient) -> None:
    alice, child = await with_child(store, client)
    await store.revoke_key(alice.key.id, NOW)
    with pytest.raises(KeyStale):
        await child.admit()
    found: Key | None = await store.find_key("child")
    assert found is not None
    assert not found.revoked
    assert terms.refusal(found, NOW) is not None
