"""Records of files, on every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.files import FileRecord, NoRoom, Room, file_id
from kimi_gateway.accounts.store import StoreDown
from support.dynamo_table import SharedTable
from support.faulty import Fault
from support.store_client import NOW

pytestmark = pytest.mark.anyio

ROOM = Room(3, 1_000)
FIRST = FileRecord(
    file_id(NOW), "acc_a", "tok_1", "kept", NOW, filename='bücher "1".pdf', size=400,
    media_type="application/pdf", purpose="user_data",
)  # fmt: skip


def another(number: int = 0, **changes: Any) -> FileRecord:
    return replace(FIRST, id=f"file-{number}", **changes)


@pytest.fixture
def files(store: Any) -> Any:
    return store


async def test_a_record_comes_back_whole_and_to_its_account_only(files: Any) -> None:
    await files.add_file(FIRST, ROOM)
    assert await files.file("acc_a", FIRST.id, NOW) == FIRST
    assert await files.files("acc_a", NOW) == [FIRST]
    assert await files.file("acc_b", FIRST.id, NOW) is None
    assert await files.files("acc_b", NOW) == []
    theirs = replace(FIRST, account="acc_b")
    assert await files.change_file(theirs, replace(theirs, state="ready"), ROOM) is False
    assert await files.remove_file(theirs) is False
    assert await files.file("acc_a", FIRST.id, NOW) == FIRST


async def test_files_come_in_the_order_of_their_creation(files: Any) -> None:
    made = [another(3), another(1, created=NOW + 1), another(2, created=NOW + 1)]
    for record in reversed(made):
        await files.add_file(replace(record, size=1), ROOM)
    assert [record.id for record in await files.files("acc_a", NOW)] == [record.id for record in made]


async def test_the_room_is_exact_in_number_and_bytes(files: Any) -> None:
    await files.add_file(another(1, size=600), ROOM)
    with pytest.raises(NoRoom) as refused:
        await files.add_file(another(2, size=401), ROOM)
    assert (refused.value.files, refused.value.size) == (1, 600)
    await files.add_file(another(2, size=400), ROOM)
    await files.add_file(another(3, size=0), ROOM)
    with pytest.raises(NoRoom) as refused:
        await files.add_file(another(4, size=0), ROOM)
    assert (refused.value.files, refused.value.size) == (3, 1_000)
    with pytest.raises(NoRoom):
        await files.add_file(another(5, account="acc_b", size=1_001), ROOM)
    assert await files.files("acc_b", NOW) == []
    assert await files.remove_file(another(1))
    await files.add_file(another(4, size=600), ROOM)
    assert [record.id for record in await files.files("acc_a", NOW)] == ["file-2", "file-3", "file-4"]


async def test_one_process_more_than_the_room_has_places_is_refused(files: Any) -> None:
    records = [another(number, size=10) for number in range(6)]
    answers = await asyncio.gather(
        *(files.add_file(record, ROOM) for record in records), return_exceptions=True
    )
    assert [type(answer) for answer in answers].count(NoRoom) == 3
    assert len(await files.files("acc_a", NOW)) == 3


async def test_what_was_added_twice_counts_once(files: Any) -> None:
    for _ in range(5):
        await files.add_file(FIRST, ROOM)
    await files.add_file(another(2, size=600), ROOM)
    assert len(await files.files("acc_a", NOW)) == 2


async def test_a_change_replaces_exactly_the_record_that_was_read(files: Any) -> None:
    await files.add_file(FIRST, ROOM)
    ready = replace(FIRST, state="ready", upstream="file_9", size=500)
    assert await files.change_file(FIRST, ready, ROOM)
    assert await files.file("acc_a", FIRST.id, NOW) == ready
    assert await files.change_file(FIRST, replace(FIRST, state="failed"), ROOM) is False
    with pytest.raises(NoRoom):
        await files.change_file(ready, replace(ready, size=1_001), ROOM)
    assert await files.file("acc_a", FIRST.id, NOW) == ready
    assert await files.change_file(ready, replace(ready, size=1_000), ROOM)
    with pytest.raises(NoRoom):
        await files.add_file(another(2, size=1), ROOM)


async def test_a_room_that_shrank_hinders_no_change_but_growth(files: Any) -> None:
    await files.add_file(FIRST, ROOM)
    small = Room(0, 0)
    gone = replace(FIRST, state="deleting", expires=NOW)
    assert await files.change_file(FIRST, gone, small)
    assert await files.file("acc_a", FIRST.id, NOW - 1) is None
    assert await files.due_files(NOW, 10) == [gone]


async def test_a_file_ends_at_its_second_and_is_then_due(files: Any) -> None:
    record = replace(FIRST, expires=NOW + 10)
    await files.add_file(record, ROOM)
    await files.add_file(another(1), ROOM)
    assert await files.file("acc_a", record.id, NOW + 9) == record
    assert await files.due_files(NOW + 9, 10) == []
    assert await files.file("acc_a", record.id, NOW + 10) is None
    assert [each.id for each in await files.files("acc_a", NOW + 10)] == ["file-1"]
    assert await files.due_files(NOW + 10, 10) == [record]
    assert await files.remove_file(record)
    assert await files.remove_file(record) is False
    assert await files.due_files(NOW + 10, 10) == []


async def test_passing_files_are_in_no_list_and_take_no_room(files: Any) -> None:
    passing = replace(FIRST, kind="passing", expires=NOW + 10, size=5_000)
    await files.add_file(passing, ROOM)
    assert await files.file("acc_a", passing.id, NOW) is None
    assert await files.files("acc_a", NOW) == []
    for number in range(3):
        await files.add_file(another(number, size=333), ROOM)
    assert await files.due_files(NOW + 10, 10) == [passing]


@pytest.mark.parametrize("kind", ["kept", "passing"])
async def test_what_is_renewed_is_due_later_and_once(files: Any, kind: Any) -> None:
    record = replace(FIRST, kind=kind, expires=NOW + 10)
    await files.add_file(record, ROOM)
    later = replace(record, expires=NOW + 99, state="ready")
    assert await files.change_file(record, later, ROOM)
    assert await files.change_file(record, replace(record, expires=NOW + 50), ROOM) is False
    assert await files.due_files(NOW + 98, 10) == []
    assert await files.due_files(NOW + 99, 10) == [later]
    assert await files.remove_file(later)
    assert await files.due_files(NOW + 999, 10) == []


async def test_what_is_due_comes_from_all_accounts_earliest_first_and_bounded(files: Any) -> None:
    for number in range(4):
        account, kind = ("acc_a", "kept") if number % 2 else ("acc_b", "passing")
        record = another(number, account=account, kind=kind, expires=NOW + 10 - number, size=1)
        await files.add_file(record, ROOM)
    assert [record.id for record in await files.due_files(NOW + 9, 10)] == ["file-3", "file-2", "file-1"]
    assert [record.id for record in await files.due_files(NOW + 10, 2)] == ["file-3", "file-2"]


@pytest.mark.parametrize("shared", ["dynalite"], indirect=True)
@pytest.mark.parametrize("kind", ["kept", "passing"])
@pytest.mark.parametrize("cut", range(6))
async def test_a_process_that_dies_between_two_writes_leaves_nothing_that_is_not_due_one_day(
    shared: SharedTable, kind: Any, cut: int
) -> None:
    """Each call from number `cut` on never arrives."""
    store, writes = shared.stores[0], iter(range(100))
    record = replace(FIRST, kind=kind, expires=NOW + 10)
    later = replace(record, expires=NOW + 99)

    def dies(operation: str, request: Any) -> Fault | None:
        return Fault.REFUSED if next(writes) >= cut else None

    shared.client.plan = dies
    added = changed = False
    try:
        await store.add_file(record, ROOM)
        added = True
        changed = await store.change_file(record, later, ROOM)
    except StoreDown:
        pass
    shared.client.plan = lambda operation, request: None
    found = [*await store.due_files(NOW + 98, 10), *await store.due_files(NOW + 99, 10)]
    if added:
        assert {each.id for each in found} == {FIRST.id}
    if changed:
        assert set(found) == {later}
    for each in found:
        await store.remove_file(each)
    assert await store.due_files(NOW + 999, 10) == []
    assert await store.files("acc_a", NOW) == []
