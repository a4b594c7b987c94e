"""Every store: budgets hold under load and lost requests, and older databases go on working."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_gateway.accounts.budgets import BudgetFull, largest
from kimi_gateway.accounts.store import KeyStale, Store, Unknown
from kimi_gateway.accounts.values import Admission, Amount, Bound, Budget, Grant, Key, Limits, Usage
from kimi_gateway.storage.sqlite.database import MIGRATIONS
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW, Client, MakeClient, one_of_each

pytestmark = pytest.mark.anyio
WIDE = Limits(10**6, 10**6, 10**6)
DAY = 86_400


def bound(at: int = NOW, input: int = 100, output: int = 900, calls: int = 1) -> Bound:
    return Bound(at, input, output, min(256, output), 200, calls, 1_000_000, 2_000_000)


async def limited(store: Store, client: Client, *budgets: Budget) -> Key:
    return await store.update_key(client.key.id, lambda key: replace(key, budgets=budgets), client.now)


async def admit(store: Store, key: Key, name: str, of: Bound, now: int = NOW) -> Admission:
    return await store.admit(name, key, 1, now + LEASE, now, of)


async def amounts(store: Store, key: Key, now: int = NOW) -> list[int]:
    return [each.amount for each in (await store.account(key.account, now)).spent]


@one_of_each
async def test_many_requests_at_once_stay_within_a_budget(store: Store, client: MakeClient) -> None:
    """30 at once; a third of them end, a third fail, and a third never end."""
    alice = await client(credits=1_000, limits=WIDE)
    key = await limited(store, alice, Budget("usd", "day", 20_000), Budget("tokens", "total", 10**6))

    async def one(number: int) -> int:
        try:
            admission = await admit(store, key, f"r{number}", bound())
        except BudgetFull:
            return 0
        assert admission.bound is not None
        assert 256 <= admission.output <= 900
        most = largest(admission.bound, admission.output)
        billed = Amount(most.usd // 2, most.tokens // 2)
        if number % 3 == 0:
            await store.settle(admission, "m", Usage(), NOW, billed)
            return billed.usd
        if number % 3 == 1:
            await store.release(admission, "m", True, NOW, Amount())
            return 0
        return most.usd

    booked = sum(await asyncio.gather(*map(one, range(30))))
    spent, _ = await amounts(store, key)
    assert spent == booked <= 20_000
    await store.purge(NOW + LEASE)
    assert (await amounts(store, key))[0] == spent  # what a lost request reserved stays spent
    while True:  # what is left can be spent to less than the smallest request
        try:
            await admit(store, key, f"last{spent}", bound(), NOW + LEASE)
        except BudgetFull as full:
            needed, resets = full.needed, full.meter.resets
            break
        spent, _ = await amounts(store, key)
        assert spent <= 20_000
    assert (needed > 20_000 - spent, resets) == (True, NOW + DAY)


async def test_a_new_day_begins_with_nothing_spent_and_a_total_goes_on(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=100)
    key = await limited(store, alice, Budget("usd", "day", 2_000), Budget("usd", "total", 5_000))
    first = await admit(store, key, "a", bound())
    assert await amounts(store, key) == [1_900, 1_900]
    with pytest.raises(BudgetFull):
        await admit(store, key, "b", bound())
    later = NOW + DAY
    await store.renew([first], later + LEASE)
    await admit(store, key, "c", bound(later), later)
    assert await amounts(store, key, later) == [1_900, 3_800]
    await store.settle(first, "m", Usage(), later, Amount(100, 100))  # of yesterday
    assert await amounts(store, key, later) == [1_900, 2_000]
    assert await amounts(store, key, NOW + 9 * DAY) == [0, 2_000]
    await admit(store, key, "d", bound(NOW + 9 * DAY), NOW + 9 * DAY)
    assert await amounts(store, key, NOW + 9 * DAY) == [1_900, 3_900]


async def test_the_budgets_of_an_account_hold_for_all_its_keys_at_once(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=100)
    before = alice.key
    account = await store.set_budgets(alice.id, [Budget("tokens", "week", 1_500)], NOW)
    assert account.budgets == (Budget("tokens", "week", 1_500),)
    key = await store.find_key(before.digest)
    assert key is not None
    assert (key.shared, key.generation) == (account.budgets, before.generation + 1)
    await admit(store, key, "a", bound(output=1_000))
    assert (await admit(store, key, "b", bound(output=1_000))).output == 300
    with pytest.raises(BudgetFull):
        await admit(store, key, "c", bound())
    assert (await store.set_budgets(alice.id, [], NOW)).spent == ()
    with pytest.raises(Unknown):
        await store.set_budgets("acc_0000000000", [], NOW)


async def test_a_request_with_budgets_costs_one_write_a_step_within_a_kilobyte(shared: SharedTable) -> None:
    """Three keys, one with budgets of a day and a month, five requests in flight."""
    from support import dynamo

    store, plain = shared.stores[0], await shared.key(Grant(20_000, NOW + 10**6), keys=3)
    key = await store.update_key(
        "digest-0",
        lambda old: replace(old, budgets=(Budget("usd", "day", 10**8), Budget("usd", "month", 10**9))),
        NOW,
    )
    found = await store.find_key(plain.digest)
    assert found is not None
    for number in range(5):
        await admit(store, key if number % 2 else found, f"{number}" * 32, bound(NOW - 1), NOW - 1)
    later = NOW
    shared.client.calls.clear()
    admission = await admit(store, key, "x" * 32, bound(later), later)
    assert await store.settle(admission, "kimi-k2.6", Usage(10**5, 10**5), later, Amount(123_456, 10**5))
    assert shared.client.calls == {"UpdateItem": 2}
    shared.client.calls.clear()
    more = await store.hold("y" * 32, key, later + LEASE, later, Bound(later, 5_000, 0, 0, 0, fee=2_000))
    assert await store.release(more, "kimi-k2.6", False, later, Amount(2_000, 0))
    assert shared.client.calls == {"UpdateItem": 2}
    assert dynamo.size(await shared.hot(key)) <= 1_024


async def test_more_is_held_for_a_request_once_and_counts_in_no_window(
    store: Store, client: MakeClient
) -> None:
    alice = await client(credits=5, limits=Limits(1, 1, 1))
    key = await limited(store, alice, Budget("usd", "day", 10_000), Budget("tokens", "total", 9_000))
    first = await admit(store, key, "a", bound())
    fees = Bound(NOW, 2_000, 0, 0, 0, fee=6_000)
    held = await store.hold("b", key, NOW + LEASE, NOW, fees)
    assert await store.hold("b", key, NOW + 2 * LEASE, NOW, fees) == held  # its answer was lost
    assert (held.cost, held.expires) == (0, NOW + LEASE)
    assert await amounts(store, key) == [1_900 + 6_000, 1_000 + 2_000]
    with pytest.raises(BudgetFull):
        await store.hold("c", key, NOW + LEASE, NOW, fees)
    with pytest.raises(KeyStale):
        await store.hold("d", alice.key, NOW + LEASE, NOW, fees)
    assert await store.release(held, "m", False, NOW, Amount(2_000, 500))
    assert not await store.release(held, "m", False, NOW, Amount(2_000, 500))
    assert await amounts(store, key) == [1_900 + 2_000, 1_000 + 500]
    assert await store.settle(first, "m", Usage(), NOW, Amount(1, 1))
    lost = await store.hold("e", key, NOW + LEASE, NOW, fees)
    await store.purge(lost.expires)
    assert await amounts(store, key) == [2_001 + 6_000, 501 + 2_000]  # what a lost one held stays spent
    account = await store.account(key.account, NOW)
    assert (account.credits, account.reserved, account.consumed) == (4, 0, 1)


async def test_a_database_of_before_has_keys_that_work_and_take_budgets(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        for statements in MIGRATIONS[:4]:
            for statement in statements:
                db.execute(statement)
        db.execute(
            "INSERT INTO accounts VALUES ('acc_1', 'alice', 0, ?, 3, '9999999999:10', 10, 0, 0)", (NOW,)
        )
        db.execute(
            "INSERT INTO keys (id, digest, account, name, rpm, see_balance, created)"
            " VALUES ('key_1', 'd1', 'acc_1', 'laptop', 5, 1, ?)",
            (NOW,),
        )
        db.execute("INSERT INTO leases VALUES ('acc_1', 'running', 2, ?)", (NOW + LEASE,))
        db.execute("PRAGMA user_version = 4")
        db.commit()
    store = SqliteStore(path)
    key = await store.find_key("d1")
    assert key == Key(
        "key_1", "d1", "acc_1", "laptop", Limits(5), see_balance=True, created=NOW, generation=3
    )
    running = Admission("running", key, 2, NOW + LEASE, None, None)
    assert await store.settle(running, "m", Usage(), NOW)
    changed = await store.update_key(
        "key_1", lambda old: replace(old, budgets=(Budget("usd", "day", 5_000),)), NOW
    )
    await admit(store, changed, "a", bound())
    assert await amounts(store, changed) == [1_900]
    await store.close()


async def test_a_table_of_before_has_keys_that_work_and_take_budgets(shared: SharedTable) -> None:
    """Keys were written twice, with all that they had then, and leases had no output limit."""
    from kimi_gateway.net.aws import DYNAMODB

    store = shared.stores[0]
    account = await store.create_account("alice", Grant(10), NOW)
    record = {
        "id": {"S": "key_abcdefghij"}, "digest": {"S": "d1"}, "account": {"S": account.id},
        "name": {"S": "laptop"}, "sees": {"BOOL": True}, "created": {"N": str(NOW)}, "m": {"N": "5"},
    }  # fmt: skip
    places = [(f"A#{account.id}", "K#ab", record), ("K#d1", "-", record),
              ("I#key_abcdefghij", "-", {"digest": {"S": "d1"}})]  # fmt: skip
    for pk, sk, item in places:
        whole = {"pk": {"S": pk}, "sk": {"S": sk}, **item}
        await shared.aws.call(DYNAMODB, "PutItem", {"TableName": shared.name, "Item": whole})
    await shared.aws.call(DYNAMODB, "UpdateItem", {
        "TableName": shared.name, "Key": {"pk": {"S": f"A#{account.id}"}, "sk": {"S": "-"}},
        "UpdateExpression": "ADD ks :kid", "ExpressionAttributeValues": {":kid": {"SS": ["ab"]}},
    })  # fmt: skip
    key = await store.find_key("d1")
    assert key == Key("key_abcdefghij", "d1", account.id, "laptop", Limits(5), see_balance=True, created=NOW)
    running = await store.admit("running", key, 2, NOW + LEASE, NOW)
    changed = await store.update_key(
        "d1", lambda old: replace(old, budgets=(Budget("usd", "day", 5_000),)), NOW
    )
    await admit(store, changed, "a", bound())
    assert await amounts(store, changed) == [1_900]
    assert await store.settle(running, "m", Usage(), NOW)
    assert (await store.rotate_key(changed.id, "d2", NOW + 9, NOW)).id == key.id
    assert (await store.revoke_key("d1", NOW)).revoked
