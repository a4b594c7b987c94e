"""Stores that the release of 2026-11-28 has written: a file with its SQL, and the items of a table.

Two accounts were used in three hours. One request of two credits is in flight, one failed, one key is
revoked, one suspended and one rotated, and there is a kept file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import moving
from kimi_gateway.accounts.files import Room
from kimi_gateway.accounts.values import Bound, Budget, Grant, Limits, NewKey, Usage
from kimi_gateway.net.aws import DYNAMODB
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.dynamo_table import SharedTable
from support.store_client import LEASE, NOW

pytestmark = pytest.mark.anyio

WRITTEN = Path(__file__).with_name("written_2026_11_28")
THEN = NOW + 7_200
BOUND = Bound(THEN, input=10, output=40, least=40, estimate=50, input_price=1_000_000, output_price=1_000_000)


async def on_sqlite(folder: Path) -> SqliteStore:
    with closing(sqlite3.connect(folder / "db")) as db:
        db.executescript((WRITTEN / "store.sql").read_text())
    return SqliteStore(folder / "db")


async def on_table(url: str) -> SharedTable:
    table = await SharedTable.on(url)
    for line in (WRITTEN / "table.jsonl").read_text().splitlines():
        await table.aws.call(DYNAMODB, "PutItem", {"TableName": table.name, "Item": json.loads(line)})
    return table


@pytest.fixture(params=["sqlite", "dynalite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        store = await on_sqlite(tmp_path)
        yield store
        await store.close()
    else:
        table = await on_table(request.getfixturevalue("dynalite_url"))
        yield table.stores[0]
        await table.client.close()


async def test_all_of_it_is_there(store: Any) -> None:
    free, team = sorted(await store.accounts(THEN), key=lambda account: account.name)
    assert (team.credits, team.reserved, team.consumed) == (147, 2, 3)
    assert team.grants == (Grant(95, NOW + 10**6), Grant(50))
    assert team.budgets == (Budget("usd", "month", 10**6),)
    assert {(each.scope == "", each.budget.unit, each.budget.period, each.amount) for each in team.spent} == {
        (True, "usd", "month", 200), (False, "usd", "day", 200), (False, "tokens", "total", 200),
    }  # fmt: skip
    assert (free.unlimited, len(free.keys)) == (True, 1)
    key = await store.find_key("d1-new")
    assert (await store.find_key("d1")).id == key.id
    assert (key.limits, key.models, key.note) == (Limits(5, 50, None), ("kimi-*", "own"), "a note")
    assert (key.search, key.files, key.in_flight) == (True, True, None)
    assert (await store.find_key("d2")).revoked
    assert (await store.find_key("d4")).suspended
    rows = [(row.hour, row.key, row.model, row.requests, row.errors, row.input, row.output, row.credits)
            for row in await store.usage(0, team.id)]  # fmt: skip
    assert rows == [
        (NOW, key.id, "kimi-k3", 1, 0, 7, 11, 1),
        (NOW + 3_600, key.id, "kimi-k3", 1, 0, 7, 11, 1),
        (THEN, key.id, "kimi-k3", 1, 1, 7, 11, 1),
    ]
    (file,) = await store.files(team.id, THEN)
    assert (file.id, file.uploaded_as, file.size) == ("file-1", "file-extract", 9)
    assert await store.recall(team.id, ["resp_1"], NOW) == {"resp_1": b"kept"}


async def test_it_goes_on(store: Any) -> None:
    key = await store.find_key("d1-new")
    running = await store.admit("in flight", key, 2, THEN + LEASE, THEN, BOUND)
    assert running.cost == 2
    assert await store.settle(running, "kimi-k3", Usage(1, 1), THEN)
    admission = await store.admit("next", key, 1, THEN + LEASE, THEN, BOUND)
    assert (admission.spendable, admission.window) == (144, replace(admission.window, remaining=1))
    assert await store.release(admission, "kimi-k3", False, THEN)
    account = await store.account(key.account, THEN)
    assert (account.credits, account.reserved, account.consumed) == (145, 0, 5)
    changed = await store.update_key(key.id, lambda old: replace(old, note="another", in_flight=1), THEN)
    assert (changed.note, changed.in_flight) == ("another", 1)
    await store.create_key(NewKey("d9", key.account), THEN)
    (file,) = await store.files(key.account, THEN)
    assert await store.change_file(file, replace(file, state="deleting"), Room())


async def test_an_import_of_it_is_the_same(store: Any, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    new = SqliteStore(tmp_path / "new" / "db")
    accounts, usage, _ = snapshot = await store.moving().snapshot(THEN)
    lines = [line.encode() for line in moving.lines(snapshot, THEN)]
    for moved in moving.checked(lines):
        assert await new.moving().restore(moved, THEN)
    assert await new.usage(0) == usage
    told = [(each.id, each.credits, each.consumed, each.budgets, each.spent) for each in accounts]
    assert told == [(each.id, each.credits, each.consumed, each.budgets, each.spent)
                    for each in await new.accounts(THEN)]  # fmt: skip
    await new.close()


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
async def test_a_file_of_a_later_release_can_be_read_changed_and_removed(shared: SharedTable) -> None:
    """A process that is still of this release meets it while a later one is rolled out."""
    for line in (WRITTEN / "table.jsonl").read_text().splitlines():
        item = json.loads(line)
        for name, value in item.items():
            if name.startswith("f") and value.get("S", "").startswith("["):
                item[name] = {"S": value["S"][:-1] + ',"of a later release",7]'}
        await shared.aws.call(DYNAMODB, "PutItem", {"TableName": shared.name, "Item": item})
    store = shared.stores[0]
    account = (await store.find_key("d1-new")).account  # type: ignore[union-attr]
    (file,) = await store.files(account, THEN)
    assert await store.file(account, "file-1", THEN) == file
    assert not await store.change_file(replace(file, size=8), replace(file, size=7), Room())
    changed = replace(file, filename="b.pdf")
    assert await store.change_file(file, changed, Room())
    assert await store.files(account, THEN) == [changed]
    assert await store.remove_file(changed)
