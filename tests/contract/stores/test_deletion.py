"""What ends with an account beside its keys and credits, on every store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.batches import BatchRecord, batch_id
from kimi_gateway.accounts.files import FileRecord, NoRoom, Room, file_id
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import NEVER
from kimi_gateway.storage.answers import Claim
from support.dynamo_table import SharedTable
from support.faulty import Fault
from support.store_client import NOW, MakeClient

pytestmark = pytest.mark.anyio

DAY = NOW + 86_400
ROOM = Room(5, 1_000)


def records(account: str) -> tuple[list[FileRecord], list[BatchRecord]]:
    """A file of each kind, and one batch that runs and one that has ended."""
    kept = FileRecord(file_id(NOW), account, "tok", "kept", NOW, state="ready", upstream=f"up-{account}")
    files = [
        kept,
        replace(kept, id=file_id(NOW), kind="shared", expires=DAY, filename="image x"),
        replace(kept, id=file_id(NOW), kind="passing", expires=NOW + 600),
    ]
    runs = BatchRecord(batch_id(NOW), account, "key", "tok", NOW, kept.id, "24h", DAY, NOW + 60, upstream="b")
    return files, [runs, replace(runs, id=batch_id(NOW), due=NEVER, expires=DAY)]


async def filled(store: Any, account: str) -> tuple[list[FileRecord], list[BatchRecord]]:
    files, batches = records(account)
    for file in files:
        await store.add_file(file, ROOM)
    for batch in batches:
        await store.add_batch(batch, 50)
    answers = store.answers()
    for name in ("done", "runs"):
        await answers.claim_answer(account, name, Claim("asked", "owner", DAY), NOW)
    await answers.keep_answer(account, "done", "owner", b"answer", DAY)
    if hasattr(store, "keep"):  # in memory the cache is apart
        await store.keep(account, {"response:1": b"text", "text-2": b"text"}, DAY)
    return files, batches


async def held(store: Any, account: str) -> list[Any]:
    """Everything that the account could still use."""
    answers = store.answers()
    found = [await answers.find_answer(account, name, NOW) for name in ("done", "runs")]
    cached = await store.recall(account, ["response:1", "text-2"], NOW) if hasattr(store, "recall") else {}
    return [
        *await store.files(account, NOW),
        *await store.shared_files(account, NOW),
        *(each for each in await store.batches(account, NOW) if not each.gone),
        *(each for each in found if each is not None),
        *sorted(cached),
    ]


async def test_an_accounts_content_ends_with_it_and_its_files_are_due(store: Any, client: MakeClient) -> None:
    alice, bob = await client(), await client()
    (kept, shared, passing), (runs, ended) = await filled(store, alice.id)
    await filled(store, bob.id)
    before = await held(store, bob.id)
    await store.delete_account(alice.id)
    assert await held(store, alice.id) == []
    due = {each.id: each for each in await store.due_files(NOW, 10)}
    assert due.keys() == {kept.id, shared.id}  # the passing one is the turn's, which may run
    assert all((each.state, each.upstream) == ("deleting", kept.upstream) for each in due.values())
    assert await store.due_batches(NOW, 10) == [runs.abandoned()]
    assert await store.batch(alice.id, ended.id, NOW) is None
    assert not await store.answers().keep_answer(alice.id, "runs", "owner", b"late", DAY)
    assert await store.answers().find_answer(alice.id, "runs", NOW) is None
    assert await held(store, bob.id) == before
    for each in due.values():
        assert await store.remove_file(each)
    assert await store.remove_file(passing)
    await store.remove_batch(runs)
    assert await store.due_batches(NOW, 10) == []


async def test_an_upload_that_ends_after_its_account_is_not_kept(store: Any, client: MakeClient) -> None:
    alice = await client()
    record = replace(records(alice.id)[0][0], state="uploading", upstream="")
    await store.add_file(record, ROOM)
    await store.delete_account(alice.id)
    assert await store.change_file(record, replace(record, state="ready", upstream="up"), ROOM) is False
    assert await store.files(alice.id, NOW) == []


@pytest.mark.parametrize("calls", [3, 9, 15, 21])
async def test_a_deletion_that_broke_off_is_repeated(shared: SharedTable, calls: int) -> None:
    store: Any = shared.stores[0]
    account = await store.create_account("alice", None, NOW)
    await filled(store, account.id)
    left = [calls]

    def after(operation: str, request: Any) -> Fault | None:
        left[0] -= 1
        return Fault.REFUSED if left[0] < 0 else None

    shared.client.plan = after
    with pytest.raises(StoreDown):
        await store.delete_account(account.id)
    shared.client.plan = lambda operation, request: None
    await store.delete_account(account.id)
    assert await held(store, account.id) == []
    assert len(await store.due_files(NOW, 10)) == 2


async def test_shared_files_have_a_room_of_their_own(store: Any) -> None:
    files = [replace(records("acc_a")[0][1], id=f"file-{number}", size=10) for number in range(4)]
    kept = [replace(records("acc_a")[0][0], id=f"kept-{number}") for number in range(2)]
    for each in [*kept, *files[:2]]:
        await store.add_file(each, Room(2, 25))
    with pytest.raises(NoRoom):
        await store.add_file(files[2], Room(2, 25))
    grown = replace(files[1], size=16)
    with pytest.raises(NoRoom):
        await store.change_file(files[1], grown, Room(2, 25))
    assert await store.shared_files("acc_a", NOW) == files[:2]
    assert await store.files("acc_a", NOW) == kept
    assert await store.file("acc_a", files[0].id, NOW) is None  # a client cannot name it
    assert await store.shared_files("acc_a", DAY) == []
    assert {each.id for each in await store.due_files(DAY, 10)} == {"file-0", "file-1"}
