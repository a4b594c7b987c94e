"""Payments, refunds and registrations whose process dies between two steps of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import payments
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.values import Account, Grant, NewKey
from kimi_gateway.endpoints import own_keys
from kimi_gateway.endpoints.registration import register
from kimi_gateway.errors import Unavailable
from kimi_gateway.http import Headers, Request
from kimi_gateway.net.aws import Patience
from kimi_gateway.net.http import Timeouts
from kimi_gateway.settings import Settings
from kimi_gateway.storage.dynamodb.store import DynamoStore
from support import dynamo
from support.dying import Dying
from support.dynamo_table import SharedTable
from support.faulty import Fault, none
from support.store_client import NOW, STORES

pytestmark = pytest.mark.anyio
MOST_STEPS = 12
ON = ("memory", "sqlite", "dynalite")


async def until_done(store: Store, at: int, after: bool, work: Callable[[Any], Awaitable[Any]]) -> bool:
    """Do the work with a store that dies, then again; True if it had died."""
    try:
        await work(Dying(store, at, after))
    except StoreDown:
        await work(store)
        return True
    return False


async def invited(store: Store) -> tuple[Account, Account]:
    host = await store.create_account("", Grant(1), NOW)
    return host, await store.create_account("", Grant(10), NOW, host.id)


@pytest.mark.parametrize("on", ON)
async def test_a_payment_and_its_reward_are_booked_once(on: str, tmp_path: Path, request: Any) -> None:
    url = request.getfixturevalue("dynalite_url") if on == "dynalite" else ""
    async with STORES[on](tmp_path, url) as store:
        died = []
        for at in (4, 30) if on == "dynalite" else range(1, 30):
            for after in (False, True):
                host, guest = await invited(store)
                work = partial(payments.pay, account=guest, payment="p", grant=Grant(500), now=NOW)
                died.append(await until_done(store, at, after, work))
                await work(store)
                found = [(await store.account(each.id, NOW)).credits for each in (host, guest)]
                assert found == [501, 510], (at, after)
                if not died[-1]:
                    assert any(died)
                    return
    pytest.fail("it always died")


@pytest.mark.parametrize("on", ["memory", "sqlite"])
async def test_a_refund_is_taken_once(on: str, tmp_path: Path) -> None:
    async with STORES[on](tmp_path, "") as store:
        for at in range(1, 5):
            for after in (False, True):
                _, guest = await invited(store)
                await payments.pay(store, guest, "p", Grant(500), NOW)
                work = partial(payments.refund, account=guest, payment="p", now=NOW)
                await until_done(store, at, after, work)
                assert await work(store) == 500
                assert (await store.account(guest.id, NOW)).credits == 10


@pytest.mark.parametrize("on", ON)
async def test_a_refund_takes_the_reward_back_once(on: str, tmp_path: Path, request: Any) -> None:
    """And the next payment earns it again, though the old one is reported again."""
    url = request.getfixturevalue("dynalite_url") if on == "dynalite" else ""
    died = True
    async with STORES[on](tmp_path, url) as store:
        for at in (6, 30) if on == "dynalite" else range(1, 30):
            for after in (False, True):
                host, guest = await invited(store)
                pay = partial(payments.pay, account=guest, grant=Grant(500), now=NOW)
                refund = partial(payments.refund, account=guest, now=NOW)

                async def credits(host: Account = host) -> int:
                    return (await store.account(host.id, NOW)).credits

                await pay(store, payment="p")
                await pay(store, payment="q")
                assert await refund(store, payment="q") == 500
                assert await credits() == 501
                died = await until_done(store, at, after, partial(refund, payment="p"))
                assert await refund(store, payment="p") == 500
                await pay(store, payment="p")
                assert await credits() == 1, (at, after)
                await until_done(store, at, after, partial(pay, payment="r"))
                assert await credits() == 501, (at, after)
                await store.deduct(host.id, 400, NOW)  # 101 are left
                await refund(store, payment="r")
                await refund(store, payment="r")
                assert await credits() == 0
                await store.grant(host.id, Grant(7), NOW)
                await refund(store, payment="r")
                assert await credits() == 7
    assert not died, "it always died"


@pytest.mark.parametrize("after", [False, True])
async def test_a_registration_that_breaks_off_opens_nothing_or_an_account_with_its_key(
    after: bool, tmp_path: Path
) -> None:
    """Its reward comes with the guest's next look at its keys."""
    for at in range(1, MOST_STEPS):
        async with STORES["memory"](tmp_path, "") as store:
            host = await store.create_account("", Grant(0), NOW)
            body = f'{{"invite_code": "{payments.invite_code(host.id)}"}}'.encode()

            async def read(body: bytes = body) -> bytes:
                return body

            def ask() -> Request:
                return Request("POST", "/user/register", Headers(()), "r", read, "192.0.2.1")

            settings = Settings(register="invite")
            dying: Any = Dying(store, at, after)
            try:
                await register(dying, settings, ask(), NOW)
            except Unavailable:
                assert dying.left <= 0
            await register(store, settings, ask(), NOW)
            guests = [each for each in await store.accounts(NOW) if each.id != host.id]
            assert [len(each.keys) for each in guests] in ([1], [1, 1])
            for guest in guests:
                await own_keys.listed(store, guest.keys[0], NOW)
            assert (await store.account(host.id, NOW)).credits == len(guests) * 50
            if dying.left > 0:
                return
    pytest.fail("it always died")


@pytest.mark.parametrize("lost", [False, True])
async def test_no_part_of_an_opening_is_an_account(lost: bool, moto_url: str) -> None:
    """The table is gone from the n-th call on; with `lost` that call was still applied."""
    shared = await SharedTable.on(moto_url)
    patience = Patience(tries=1, total=60, pause=0, each=Timeouts(30, 30))
    store = DynamoStore(shared.name, dynamo.aws(moto_url, shared.client, patience))
    try:
        for at in range(1, 20):
            left = at

            def gone(operation: str, request: Any) -> Fault | None:
                nonlocal left
                left -= 1
                return None if left > 0 else Fault.LOST_AFTER if lost and left == 0 else Fault.REFUSED

            shared.client.plan = gone
            try:
                await store.open_account(Grant(5), NewKey(f"digest-{at}", ""), NOW)
            except StoreDown:
                shared.client.plan = none
                key = await store.find_key(f"digest-{at}")
                opened = await store.accounts(NOW)
                assert [len(each.keys) for each in opened] == [1] * (key is not None) * len(opened)
            else:
                return
    finally:
        await shared.client.close()
    pytest.fail("it always died")


async def test_a_client_that_leaves_does_not_cut_a_registration(tmp_path: Path) -> None:
    async with STORES["memory"](tmp_path, "") as store:
        held = asyncio.Event()
        create = store.open_account

        async def slow(*args: Any) -> Account:
            account = await create(*args)
            held.set()
            await asyncio.sleep(0)
            return account

        store.open_account = slow  # type: ignore[method-assign]

        async def read() -> bytes:
            return b"{}"

        request = Request("POST", "/user/register", Headers(()), "r", read, "192.0.2.1")
        asked = asyncio.create_task(register(store, Settings(register="open"), request, NOW))
        await held.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        while not (await store.accounts(NOW))[0].keys:  # noqa: ASYNC110
            await asyncio.sleep(0)
