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
from kimi_gateway.accounts.values import Account, Grant
from kimi_gateway.endpoints.registration import register
from kimi_gateway.errors import Unavailable
from kimi_gateway.http import Headers, Request
from kimi_gateway.settings import Settings
from support.dying import Dying
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
        for at in range(1, MOST_STEPS):
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


@pytest.mark.parametrize("after", [False, True])
async def test_no_key_works_whose_invitation_is_not_rewarded(after: bool, tmp_path: Path) -> None:
    """A registration that broke off leaves an account without a key at most; the next one is another."""
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
            failed = False
            try:
                await register(dying, settings, ask(), NOW)
            except Unavailable:
                failed = True
            await register(store, settings, ask(), NOW)
            accounts = [each for each in await store.accounts(NOW) if each.id != host.id]
            rewards = (await store.account(host.id, NOW)).credits
            assert sum(bool(each.keys) for each in accounts) * 50 <= rewards <= len(accounts) * 50
            assert sum(bool(each.keys) for each in accounts) >= 1
            if not failed:
                return
    pytest.fail("it always died")


async def test_a_client_that_leaves_does_not_cut_a_registration(tmp_path: Path) -> None:
    async with STORES["memory"](tmp_path, "") as store:
        held = asyncio.Event()
        create = store.create_account

        async def slow(*args: Any) -> Account:
            account = await create(*args)
            held.set()
            await asyncio.sleep(0)
            return account

        store.create_account = slow  # type: ignore[method-assign]

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
