"""DynamoDB alone: counts stay exact among many at once, whatever calls are lost."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest

from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.store import KeyStale, NoCredit, StoreDown, WindowFull
from kimi_gateway.accounts.values import Amount, Bound, Budget, Grant, Key, Limits, NewKey, Usage
from kimi_gateway.storage.dynamodb.item import Image
from kimi_gateway.storage.dynamodb.keys import MOST_ENDED
from support.dynamo_table import SharedTable
from support.faulty import Fault, none
from support.store_client import LEASE, NOW

pytestmark = pytest.mark.anyio
# moto serves one request after the other and takes some 15 ms for each write. So it gets few at a time, else
# they wait longer than the store's patience.
AT_ONCE = {"moto": 16, "dynalite": 200}


def tried_with(moto: int, dynalite: int) -> pytest.MarkDecorator:
    """Numbers of requests; `MANY=500 pytest FILE` sets another one for both."""
    numbers = [(name, int(os.environ.get("MANY", many))) for name, many in
               (("moto", moto), ("dynalite", dynalite))]  # fmt: skip
    return pytest.mark.parametrize(("shared", "many"), numbers, indirect=["shared"], ids=["moto", "dynalite"])


MANY = tried_with(60, 300)
T = TypeVar("T")


async def ended_as(shared: SharedTable, steps: list[Callable[[], Coroutine[Any, Any, str]]]) -> Counter[str]:
    """How they ended, AT_ONCE at a time."""
    places = asyncio.Semaphore(AT_ONCE[shared.kind])

    async def one(step: Callable[[], Coroutine[Any, Any, str]]) -> str:
        async with places:
            return await step()

    return Counter(await asyncio.gather(*map(one, steps)))


@tried_with(20, 60)
async def test_budgets_of_many_keys_hold_among_many_at_once(shared: SharedTable, many: int) -> None:
    """Each request takes 50 of the account's budget, for half of them, and of its key's."""
    await shared.key(Grant(10**6), keys=5)
    key = (await shared.stores[0].accounts(NOW))[0].keys[0]
    await shared.stores[0].set_budgets(key.account, [Budget("tokens", "day", 25 * many)], NOW)
    for each in (await shared.stores[0].account(key.account, NOW)).keys:
        own = (Budget("tokens", "total", 10 * many),)
        await shared.stores[0].update_key(each.id, partial(replace, budgets=own), NOW)
    held = (await shared.stores[0].account(key.account, NOW)).keys
    bound = Bound(NOW, 10, 40, 40, 50)

    async def step(number: int) -> str:
        store, own = shared.stores[number % len(shared.stores)], held[number % len(held)]
        try:
            admission = await store.admit(f"r{number}", own, 1, NOW + LEASE, NOW, bound)
        except BudgetFull:
            return "full"
        assert await store.settle(admission, "m", Usage(), NOW, Amount(0, 50))
        return "settled"

    ends = await ended_as(shared, [partial(step, number) for number in range(many)])
    account = await shared.stores[0].account(key.account, NOW)
    assert ends == {"settled": many // 2, "full": many - many // 2}
    assert account.consumed == many // 2
    assert [each.amount for each in account.spent if not each.scope] == [25 * many]
    assert all(each.amount <= each.budget.limit for each in account.spent)
    assert sum(each.amount for each in account.spent if each.scope) == 25 * many


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
async def test_revoked_keys_leave_a_bounded_part_of_the_hot_item_and_stay_revoked(
    shared: SharedTable,
) -> None:
    """Each leaves a version, a budget without an end and a count of requests in flight."""
    maker, store = await shared.key(Grant(10**6)), shared.stores[0]
    own, bound = (Budget("tokens", "total", 10**6),), Bound(NOW, 10, 40, 40, 50)
    sizes, last, running = list[int](), None, []

    async def used(digest: str, number: int) -> Key:
        new = NewKey(digest, maker.account, made_by=maker.id, budgets=own, in_flight=5)
        key = await store.create_key(new, NOW)
        key = await store.update_key(key.id, partial(replace, note="changed"), NOW)
        admission = await store.admit(f"r{number}", key, 1, NOW + LEASE, NOW, bound)
        running.append(admission)
        return key

    kept = await used("kept", 0)
    for number in range(1, MOST_ENDED):
        last = await used(f"made-{number}", number)
        await store.revoke_key(last.id, NOW)  # while its request runs
        assert await store.settle(running[-1], "m", Usage(), NOW, Amount(0, 50))
        hot = Image(await shared.hot(maker))
        sizes.append(len(hot.of_ended_keys(but="")))
    assert max(sizes) <= MOST_ENDED + 3 + 3  # of the newest one, and what its request left
    for number in range(1, MOST_ENDED):
        found = await store.find_key(f"made-{number}")
        assert found is not None
        assert found.revoked
    with pytest.raises(KeyStale):
        await store.admit("late", replace(last, revoked=False), 1, NOW + LEASE, NOW, bound)  # type: ignore[type-var]
    assert await store.settle(running[0], "m", Usage(), NOW, Amount(0, 50))
    alive = await store.find_key("kept")
    assert alive is not None
    assert not alive.revoked
    assert alive.note == "changed"
    account = await store.account(maker.account, NOW)
    assert [each.amount for each in account.spent if each.scope == kept.id] == [50]
    assert (account.consumed, account.reserved) == (MOST_ENDED, 0)


@MANY
async def test_many_at_once_share_one_limit_exactly(shared: SharedTable, many: int) -> None:
    most = many // 5
    key = await shared.key(None, Limits(minute=most))

    async def attempt(number: int) -> str:
        try:
            store = shared.stores[number % 4]
            await store.admit(f"r{number}", key, 1, NOW + LEASE, NOW)
        except WindowFull as full:
            return f"full: {full.window.limit}, {full.window.remaining} left"
        return "admitted"

    ended = await ended_as(shared, [partial(attempt, number) for number in range(many)])
    assert ended == {"admitted": most, f"full: {most}, 0 left": many - most}


def one_in_five_lost(chance: random.Random) -> Callable[[str, Any], Fault | None]:
    faults = (Fault.LOST_BEFORE, Fault.LOST_AFTER)
    return lambda operation, request: chance.choice(faults) if chance.random() < 0.2 else None


async def insist(step: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """As the ledger does."""
    while True:
        with suppress(StoreDown):
            return await step()


@MANY
async def test_many_at_once_share_one_balance_exactly_whatever_is_lost(
    shared: SharedTable, many: int
) -> None:
    credits = many // 3
    key = await shared.key(Grant(credits))
    chance = random.Random(7)
    ends = [chance.choices(("settle", "release", "crash"), (6, 3, 1))[0] for _ in range(many)]
    shared.client.plan = one_in_five_lost(chance)

    async def attempt(number: int, end: str) -> str:
        store = shared.stores[number % 4]
        try:
            admission = await insist(lambda: store.admit(f"r{number}", key, 1, NOW + LEASE, NOW))
        except NoCredit:
            return "refused"
        if end == "settle":
            await insist(lambda: store.settle(admission, "kimi-k2", Usage(3, 2), NOW))
        elif end == "release":
            await insist(lambda: store.release(admission, "kimi-k2", True, NOW))
        return end

    ended = await ended_as(shared, [partial(attempt, number, end) for number, end in enumerate(ends)])
    shared.client.plan = none
    store = shared.stores[0]
    account = await store.account(key.account, NOW)
    (row,) = await store.usage(NOW)
    assert ended["crash"] > 0
    assert ended["release"] > 0
    assert account.credits + account.consumed == credits
    assert (account.consumed, account.reserved) == (ended["settle"], ended["crash"])
    assert (row.requests, row.errors) == (ended["settle"], ended["release"])
    assert (row.input, row.output, row.credits) == (3 * row.requests, 2 * row.requests, row.requests)
    counted = sum(int(value["N"]) for name, value in (await shared.hot(key)).items() if name[0] == "m")
    assert counted == len(ends) - ended["refused"]
    later = await store.account(key.account, NOW + LEASE)
    assert (later.credits, later.reserved) == (credits - ended["settle"], 0)
