"""Accounts that are moved between stores, to the last credit, also by interrupted and repeated imports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import moving
from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.moving import BadExport
from kimi_gateway.accounts.store import StoreDown, Taken
from kimi_gateway.accounts.values import Account, Bound, Budget, Grant, Limits, NewKey, Usage
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.dynamo_table import SharedTable
from support.faulty import Fault
from support.store_client import LEASE, NOW, STORES

pytestmark = pytest.mark.anyio

BOUND = Bound(NOW, input=10, output=40, least=40, estimate=50, input_price=1_000_000, output_price=1_000_000)
LATER = NOW + 3 * 3_600


@pytest.fixture
async def home(tmp_path: Path, anyio_backend: str) -> AsyncIterator[SqliteStore]:
    async with STORES["sqlite"](tmp_path, "") as store:
        yield store  # type: ignore[misc]


async def filled(store: Any) -> None:
    """Two accounts with all that they may have, used in two hours."""
    account = await store.create_account("team", Grant(100, NOW + 10**6), NOW)
    await store.grant(account.id, Grant(50), NOW)
    await store.set_budgets(account.id, [Budget("usd", "month", 10**6)], NOW)
    new = NewKey(
        "d1", account.id, "laptop", Limits(5, 50, None), True, ("kimi-*", "own"), NOW + 10**7, "a note",
        (Budget("usd", "day", 150), Budget("tokens", "total", 10**6)), in_flight=3, search=False,
    )  # fmt: skip
    assert await store.fund(account.id, "payment-1", lambda balance: balance, NOW)
    first = await store.create_key(new, NOW)
    await store.rotate_key(first.id, "d1-new", NOW + 10**6, NOW)
    second = await store.create_key(NewKey("d2", account.id, "gone", made_by=first.id), NOW)
    await store.revoke_key(second.id, NOW)
    key = await store.find_key("d1-new")
    for number, now in enumerate((NOW, NOW + 3_600, NOW + 7_200)):
        admission = await store.admit(f"r{number}", key, 1, now + LEASE, now, replace(BOUND, at=now))
        await store.settle(admission, "kimi-k3", Usage(7, 11, 3, 1, 2, 5, 40, 9), now)
    free = await store.create_account("", None, NOW + 1)
    await store.create_key(NewKey("d3", free.id), NOW + 1)
    await store.settle(
        await store.admit("f", await store.find_key("d3"), 1, NOW + LEASE, NOW), "kimi-k2", Usage(1), NOW
    )
    failed = await store.admit("failed", await store.find_key("d3"), 1, NOW + LEASE, NOW)
    await store.release(failed, "kimi-k2", True, NOW, cause="rate")


async def exported(store: Any, now: int = LATER) -> list[bytes]:
    snapshot = await store.moving().snapshot(now)
    return [line.encode() for line in moving.lines(snapshot, now)]


async def imported(store: Any, lines: Iterable[bytes]) -> list[bool]:
    return [await store.moving().restore(moved, LATER) for moved in list(moving.checked(lines))]


def comparable(accounts: list[Account]) -> list[Any]:
    def keys(account: Account) -> list[Any]:
        return [replace(key, generation=0, maker=None) for key in account.keys]

    return [replace(account, keys=tuple(keys(account))) for account in accounts]


@pytest.mark.parametrize("there", ["sqlite", "moto", "dynalite"])
@pytest.mark.parametrize("here", ["sqlite", "dynalite"])
async def test_an_account_arrives_whole(
    request: pytest.FixtureRequest, tmp_path: Path, here: str, there: str
) -> None:
    async with AsyncExitStack() as stack:
        stores: list[Any] = []
        for number, name in enumerate((here, there)):
            (folder := tmp_path / str(number)).mkdir()
            url = "" if name == "sqlite" else request.getfixturevalue(f"{name}_url")
            stores.append(await stack.enter_async_context(STORES[name](folder, url)))
        old, new = stores
        await filled(old)
        lines = await exported(old)
        assert await imported(new, lines) == [True, True]
        assert comparable(await new.accounts(LATER)) == comparable(await old.accounts(LATER))
        assert await new.usage(0) == await old.usage(0)
        assert await imported(new, lines) == [False, False]
        (id,) = [account.id for account in await new.accounts(LATER) if account.name == "team"]
        assert not await new.fund(id, "payment-1", lambda balance: balance, LATER)
        assert await new.funded(id, "payment-1") == 0
        assert await new.funded(id, "payment-2") is None
        await used_on(new)
        assert await imported(new, lines) == [False, False]  # and what was used since stays used
        (team,) = [account for account in await new.accounts(LATER) if account.name == "team"]
        assert (team.consumed, team.credits) == (4, 146)
        (team,) = [account for account in await new.accounts(NOW + 10**6) if account.name == "team"]
        assert (team.expired, team.credits) == (96, 50)


async def used_on(store: Any) -> None:
    """The keys work, the old secret too; the day's budget has what the old store left of it."""
    key = await store.find_key("d1-new")
    assert (await store.find_key("d1")).id == key.id
    assert (await store.find_key("d2")).revoked
    assert key.budgets == (Budget("usd", "day", 150), Budget("tokens", "total", 10**6))
    with pytest.raises(BudgetFull):  # all of it is spent
        await store.admit("over", key, 1, LATER + LEASE, LATER, replace(BOUND, at=LATER))
    await store.update_key(key.id, lambda old: replace(old, budgets=()), LATER)
    key = await store.find_key("d1-new")
    admission = await store.admit("next", key, 1, LATER + LEASE, LATER, replace(BOUND, at=LATER))
    assert admission.spendable == 146
    await store.settle(admission, "kimi-k3", Usage(1, 1), LATER)
    await store.create_key(NewKey("d9", key.account), LATER)


async def test_reserved_credits_come_back_in_the_new_store(home: SqliteStore, tmp_path: Path) -> None:
    account = await home.create_account("a", Grant(10, NOW + 100), NOW)
    key = await home.create_key(NewKey("d", account.id), NOW)
    await home.admit("r", key, 4, NOW + LEASE, NOW)
    lines = await exported(home, NOW)
    other = SqliteStore(tmp_path / "other")
    assert await imported(other, lines) == [True]
    told = await other.account(account.id, NOW)
    assert (told.credits, told.reserved) == (10, 0)
    assert sum(grant.amount for grant in told.grants) == 10
    await other.close()


async def test_an_account_of_the_same_id_ends_the_import_and_stays(home: SqliteStore, tmp_path: Path) -> None:
    await filled(home)
    lines = await exported(home)
    before = await home.accounts(LATER)
    with pytest.raises(Taken):
        await imported(home, lines)
    assert await home.accounts(LATER) == before
    other = SqliteStore(tmp_path / "other")
    account = await other.create_account("b", None, NOW)
    await other.create_key(NewKey("d1-new", account.id), NOW)
    with pytest.raises(Taken):
        await imported(other, lines)
    assert [each.name for each in await other.accounts(LATER)] == ["b"]
    await other.delete_account(account.id)
    assert await imported(other, lines) == [True, True]
    for each in await other.accounts(LATER):
        await other.delete_account(each.id)
    assert await imported(other, lines) == [True, True]
    await other.close()


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
async def test_an_import_that_is_interrupted_at_any_call_is_repeated_to_the_same_end(
    shared: SharedTable, home: SqliteStore
) -> None:
    await filled(home)
    lines = await exported(home)
    store, expected = shared.stores[0], comparable(await home.accounts(LATER))
    interrupted = 0
    while True:
        left = interrupted

        def stop(operation: str, request: Any) -> Fault | None:
            nonlocal left
            left -= operation in ("PutItem", "UpdateItem")
            return Fault.LOST_BEFORE if left < 0 else None

        shared.client.plan = stop
        try:
            await imported(store, lines)
            break
        except StoreDown:
            interrupted += 5
        shared.client.plan = lambda operation, request: None
        assert len(await store.accounts(LATER)) <= 2
    shared.client.plan = lambda operation, request: None
    assert interrupted > 12
    assert comparable(await store.accounts(LATER)) == expected
    assert await store.usage(0) == await home.usage(0)


async def test_keys_whose_short_forms_collide_get_other_ids(shared: SharedTable, home: SqliteStore) -> None:
    account = await home.create_account("a", Grant(10), NOW)
    rows = [
        {**_row(account.id), "id": f"key_ab{number}0000000", "digest": f"d{number}"} for number in range(3)
    ]
    lines = _with_keys(await exported(home), rows)
    store = shared.stores[0]
    assert await imported(store, lines) == [True]
    ids = {(await store.find_key(f"d{number}")).id for number in range(3)}  # type: ignore[union-attr]
    assert len({id[4:8] if id[4].isupper() else id[4:6] for id in ids}) == 3
    assert "key_ab00000000" in ids
    assert await imported(store, lines) == [False]


def _row(account: str) -> dict[str, Any]:
    return {
        "type": "key",
        "account": account,
        "limits": [None] * 3,
        "budgets": "",
        "models": [],
        "created": NOW,
    }


def _with_keys(lines: list[bytes], rows: list[dict[str, Any]]) -> list[bytes]:
    """The same export with more lines and the end that belongs to them."""
    body = [*lines[:-1], *(json.dumps(row).encode() + b"\n" for row in rows)]
    end = {"type": "end", "lines": len(body), "sha256": moving.sha256(b"".join(body)).hexdigest()}
    return [*body, json.dumps(end).encode() + b"\n"]


async def test_no_cut_or_changed_file_is_read(home: SqliteStore) -> None:
    await filled(home)
    lines = await exported(home)
    bad = [lines[:cut] for cut in range(len(lines))]
    bad += [[*lines[:at], *lines[at + 1 :]] for at in range(len(lines))]
    bad += [[*lines[:at], lines[at][:-9] + b"\n", *lines[at + 1 :]] for at in range(len(lines))]
    changed = lines[1].replace(b'"consumed":', b'"consumed":1')
    bad += [
        [lines[0], changed, *lines[2:]],
        [b'{"type":"kimi-gateway-export","format":2,"at":1}\n', *lines[1:]],
    ]
    for each in bad:
        with pytest.raises(BadExport):
            list(moving.checked(each))


async def test_unknown_members_are_ignored_and_missing_ones_have_their_default(home: SqliteStore) -> None:
    account = await home.create_account("a", Grant(10), NOW)
    row = _row(account.id) | {"id": "key_aa00000000", "digest": "d", "of_a_later_release": {"a": [1]}}
    (moved,) = moving.checked(_with_keys(await exported(home), [row]))
    (key,) = moved.account.keys
    assert (key.search, key.note, key.expires) == (True, "", 9_999_999_999)


async def test_no_secret_is_in_an_export(home: SqliteStore) -> None:
    await filled(home)
    await home.keep((await home.accounts(LATER))[0].id, {"resp_1": b"a secret answer"}, LATER + 100)
    text = b"".join(await exported(home))
    assert b"sk-kg-" not in text
    assert b"secret answer" not in text
