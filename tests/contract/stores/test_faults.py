"""DynamoDB alone: a service that throttles, fails or is silent, answers that are lost, others in the way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.store import KeyStale, StoreDown, StoreThrottled
from kimi_gateway.accounts.values import Admission, Grant, Key, NewKey, Usage
from kimi_gateway.net.aws import DYNAMODB, Patience
from kimi_gateway.net.http import Timeouts
from kimi_gateway.storage.dynamodb.store import TRIES, DynamoStore
from support import dynamo
from support.dynamo_table import SharedTable
from support.faulty import Fault, always, in_turn, none
from support.store_client import LEASE, NOW

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("shared", ["dynalite"], indirect=True)]
PASSING = [fault for fault in Fault if fault is not Fault.REFUSED]
Step = Callable[[DynamoStore, Key, Admission], Coroutine[Any, Any, object]]


def renamed(key: Key) -> Key:
    return replace(key, name="renamed")


STEPS: dict[str, Step] = {
    "find_key": lambda store, key, admission: store.find_key(key.digest),
    "admit": lambda store, key, admission: store.admit("another", key, 1, NOW + LEASE, NOW),
    "settle": lambda store, key, admission: store.settle(admission, "kimi-k2", Usage(), NOW),
    "release": lambda store, key, admission: store.release(admission, "kimi-k2", True, NOW),
    "renew": lambda store, key, admission: store.renew([admission], NOW + 2 * LEASE),
    "purge": lambda store, key, admission: store.purge(NOW + LEASE),
    "create_account": lambda store, key, admission: store.create_account("b", None, NOW),
    "create_key": lambda store, key, admission: store.create_key(NewKey("d", key.account), NOW),
    "update_key": lambda store, key, admission: store.update_key(key.id, renamed, NOW),
    "rotate_key": lambda store, key, admission: store.rotate_key(key.id, "e", NOW, NOW),
    "rename_account": lambda store, key, admission: store.rename_account(key.account, "b", NOW),
    "delete_account": lambda store, key, admission: store.delete_account(key.account),
    "revoke_key": lambda store, key, admission: store.revoke_key(key.id, NOW),
    "grant": lambda store, key, admission: store.grant(key.account, Grant(5), NOW),
    "account": lambda store, key, admission: store.account(key.account, NOW),
    "accounts": lambda store, key, admission: store.accounts(NOW),
    "usage": lambda store, key, admission: store.usage(0),
    "publish": lambda store, key, admission: store.publish("tok_1", "", "rate", NOW),
    "retract": lambda store, key, admission: store.retract("tok_1", ""),
    "published": lambda store, key, admission: store.published(),
    "claim": lambda store, key, admission: store.claim("tok_1", NOW, NOW + 60),
}


@pytest.fixture
async def impatient(shared: SharedTable) -> DynamoStore:
    patience = Patience(tries=3, total=60, pause=0, each=Timeouts(30, 30))
    return DynamoStore(shared.name, dynamo.aws(shared.url, shared.client, patience))


@pytest.mark.parametrize("step", STEPS)
async def test_every_step_says_that_the_store_is_down(
    shared: SharedTable, impatient: DynamoStore, step: str
) -> None:
    key = await shared.key(Grant(10))
    admission = await impatient.admit("r", key, 1, NOW + LEASE, NOW)
    shared.client.calls.clear()
    shared.client.plan = always(Fault.THROTTLED)
    with pytest.raises(StoreThrottled, match="ThrottlingException"):
        await STEPS[step](impatient, key, admission)
    assert max(shared.client.calls.values()) <= 3 * 3


async def test_a_table_that_is_not_there_is_a_store_that_is_down(shared: SharedTable) -> None:
    store = DynamoStore("no-such-table", shared.aws)
    for step in (store.find_key("d"), store.create_account("a", None, NOW), store.published()):
        with pytest.raises(StoreDown, match="ResourceNotFoundException"):
            await step


@pytest.mark.parametrize("fault", PASSING)
async def test_a_request_whose_calls_fail_twice_is_charged_once(shared: SharedTable, fault: Fault) -> None:
    store, key = shared.stores[0], await shared.key(Grant(10))
    shared.client.plan = in_turn(fault, fault, None, fault, fault)
    admission = await store.admit("r", key, 3, NOW + LEASE, NOW)
    await store.settle(admission, "kimi-k2", Usage(10, 1), NOW)
    account = await store.account(key.account, NOW)
    (row,) = await store.usage(NOW)
    assert (admission.spendable, account.credits, account.consumed, account.reserved) == (7, 7, 3, 0)
    assert (row.requests, row.input, row.output, row.credits) == (1, 10, 1, 3)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_credit_whose_release_fails_twice_comes_back_once(shared: SharedTable, fault: Fault) -> None:
    store, key = shared.stores[0], await shared.key(Grant(10))
    admission = await store.admit("r", key, 3, NOW + LEASE, NOW)
    shared.client.plan = in_turn(fault, fault)
    await store.release(admission, "kimi-k2", True, NOW)
    account = await store.account(key.account, NOW)
    (row,) = await store.usage(NOW)
    assert (account.credits, account.reserved, row.errors) == (10, 0, 1)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_grant_whose_calls_fail_twice_is_given_once(shared: SharedTable, fault: Fault) -> None:
    key = await shared.key(Grant(10))
    for operation in ("GetItem", "UpdateItem"):
        shared.client.plan = in_turn(fault, fault, operation=operation)
        account = await shared.stores[0].grant(key.account, Grant(5), NOW)
    assert (account.credits, sum(grant.amount for grant in account.grants)) == (20, 20)


async def test_a_grant_of_lost_answers_is_given_once_though_others_grant_meanwhile(
    shared: SharedTable,
) -> None:
    key = await shared.key(Grant(10))
    first, second = shared.stores[:2]
    begun = False

    def plan(operation: str, request: Any) -> Fault | None:
        nonlocal begun
        if operation == "UpdateItem" and not begun:
            begun = True
            return Fault.LOST_AFTER
        return None

    async def others(seconds: float) -> None:
        await second.grant(key.account, Grant(100), NOW)

    first = DynamoStore(shared.name, dynamo.aws(shared.url, shared.client, sleep=others))
    shared.client.plan = plan
    account = await first.grant(key.account, Grant(5), NOW)
    assert account.credits == 115


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_accounts_and_keys_are_made_once_whichever_call_is_lost(
    shared: SharedTable, fault: Fault
) -> None:
    store = shared.stores[0]
    for lost in range(5):
        faults = [None] * lost + [fault]
        for operation in ("PutItem", "UpdateItem"):
            shared.client.plan = in_turn(*faults, operation=operation)
            account = await store.create_account(f"{fault.name}{operation}{lost}", Grant(1), NOW)
            shared.client.plan = in_turn(*faults, operation=operation)
            key = await store.create_key(NewKey(f"{operation}{lost}", account.id), NOW)
            shared.client.plan = none
            assert (await store.account(account.name, NOW)).keys == (key,)
            assert await store.find_key(key.digest) == key
            assert (await store.revoke_key(key.id, NOW)).revoked


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
@pytest.mark.parametrize("lost", range(2))
async def test_a_key_is_changed_whichever_call_is_lost(shared: SharedTable, fault: Fault, lost: int) -> None:
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(10))
    shared.client.plan = in_turn(*[None] * lost, fault, operation="UpdateItem")
    assert (await ours.update_key(key.id, renamed, NOW)).name == "renamed"
    shared.client.plan = none
    found = await theirs.find_key(key.digest)
    assert found is not None
    assert found.name == "renamed"
    with pytest.raises(KeyStale):
        await theirs.admit("r", key, 1, NOW + LEASE, NOW)
    assert (await theirs.admit("r", found, 1, NOW + LEASE, NOW)).spendable == 9


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "DeleteItem"])
async def test_what_broke_off_is_finished_by_doing_it_again(
    shared: SharedTable, impatient: DynamoStore, operation: str
) -> None:
    store = shared.stores[0]
    for done in range(4):
        account = await store.create_account(f"{operation}{done}", Grant(10), NOW)
        key = await store.create_key(NewKey(f"d{done}", account.id), NOW)
        steps: list[Callable[[DynamoStore], Coroutine[Any, Any, object]]] = [
            lambda on: on.rotate_key(key.id, f"e{done}", NOW + 9, NOW),  # noqa: B023
            lambda on: on.rename_account(account.id, f"new{done}", NOW),  # noqa: B023
            lambda on: on.delete_account(account.id),  # noqa: B023
        ]
        for step in steps:
            shared.client.plan = in_turn(*[None] * done, *[Fault.BROKEN] * 3, operation=operation)
            try:
                await step(impatient)
            except StoreDown:
                shared.client.plan = none
                await step(store)
            shared.client.plan = none
            if step is steps[0]:
                found = await store.find_key(f"e{done}")
                assert found is not None
                assert (found.id, found.old_digest) == (key.id, f"d{done}")
            if step is steps[1]:
                assert (await store.account(f"new{done}", NOW)).id == account.id
                assert not await shared.item(f"N#{operation}{done}", account.id)
        left = [
            (f"A#{account.id}", "-"),
            (f"A#{account.id}", "info"),
            (f"K#e{done}", "-"),
            (f"I#{key.id}", "-"),
            (f"N#new{done}", account.id),
            ("ACCOUNTS", account.id),
        ]
        for pk, sk in left:
            assert not await shared.item(pk, sk)


async def test_a_key_is_never_read_older_than_its_generation(shared: SharedTable) -> None:
    """The change comes while the key is being read: behind the read of its record, before that of the hot
    item, or the other way about."""
    ours, theirs = shared.stores[:2]
    key = await shared.key(Grant(10))
    for number, reads in enumerate((1, 2)):
        done = 0

        async def change() -> None:
            nonlocal done
            done += 1
            if done == reads + 1:  # noqa: B023
                shared.client.waiting = None
                await theirs.update_key(key.id, lambda old: replace(old, note=f"{number}"), NOW)  # noqa: B023

        shared.client.waiting = change
        found = await ours.find_key(key.digest)
        shared.client.waiting = None
        assert found is not None
        if found.note != f"{number}":
            with pytest.raises(KeyStale):
                await ours.admit(f"r{number}", found, 1, NOW + LEASE, NOW)


@pytest.mark.parametrize("writes", range(3))
async def test_a_key_whose_making_breaks_off_admits_nobody(
    shared: SharedTable, impatient: DynamoStore, writes: int
) -> None:
    account = await impatient.create_account("a", Grant(1), NOW)
    shared.client.plan = in_turn(*[None] * writes, *[Fault.BROKEN] * 3, operation="PutItem")
    with pytest.raises(StoreDown):
        await impatient.create_key(NewKey("d", account.id), NOW)
    shared.client.plan = none
    found = await impatient.find_key("d")
    assert found is None or found.revoked
    if found is not None:
        with pytest.raises(KeyStale):
            await impatient.admit("r", found, 1, NOW + LEASE, NOW)
    made = await impatient.create_key(NewKey("e", account.id), NOW)
    assert (await impatient.admit("r", made, 1, NOW + LEASE, NOW)).spendable == 0


class Meddler:
    """Changes the balance behind a store's back before each of its writes that could see it."""

    def __init__(self, shared: SharedTable, key: Key, times: int) -> None:
        self.shared, self.key, self.times, self.left = shared, key, times, times

    async def __call__(self, seconds: float) -> None:
        pass

    async def change(self) -> None:
        if self.left:
            self.left -= 1
            await self.shared.aws.call(DYNAMODB, "UpdateItem", {
                "TableName": self.shared.name,
                "Key": {"pk": {"S": f"A#{self.key.account}"}, "sk": {"S": "-"}},
                "UpdateExpression": "ADD b :one",
                "ExpressionAttributeValues": {":one": {"N": "1"}},
            })  # fmt: skip


@pytest.mark.parametrize("step", ["admit", "release", "grant"])
async def test_a_storm_of_others_is_outlasted_or_told(shared: SharedTable, step: str) -> None:
    """Each of these has to fold an expired grant first, which needs the balance to stay as it was."""
    for times, outlasted in ((TRIES // 3, True), (3 * TRIES, False)):
        shared.client.before = None
        opened = await shared.stores[1].create_account(f"a{times}", Grant(10, NOW + 10), NOW)
        key = await shared.stores[1].create_key(NewKey(f"d{times}", opened.id), NOW)
        await shared.stores[1].grant(opened.id, Grant(50), NOW)
        admission = await shared.stores[1].admit("r", key, 1, NOW + LEASE, NOW)
        meddler = Meddler(shared, key, times)
        store = DynamoStore(shared.name, shared.aws, sleep=meddler)
        shared.client.before = meddler.change
        doing = {
            "admit": lambda: store.admit("s", key, 1, NOW + LEASE, NOW + 10),  # noqa: B023
            "release": lambda: store.release(admission, "kimi-k2", False, NOW + 10),  # noqa: B023
            "grant": lambda: store.grant(key.account, Grant(1), NOW + 10),  # noqa: B023
        }[step]
        if outlasted:
            await doing()
        else:
            with pytest.raises(StoreThrottled, match="others changed the account"):
                await doing()
