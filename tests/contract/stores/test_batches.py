"""Records of batches, on every store."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts.batches import BatchRecord, TooManyBatches, batch_id, record_of, text_of
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import NEVER, Usage
from kimi_gateway.storage.dynamodb.batches import ON_ITS_WAY
from support.dynamo_table import SharedTable
from support.faulty import Fault, in_turn
from support.store_client import NOW, MakeClient

pytestmark = pytest.mark.anyio

FIRST = BatchRecord(
    batch_id(NOW), "acc_a", "key_a", "tok_1", NOW, "file-1", "24h", NOW + 600, NOW + 60,
    metadata='{"wer": "bücher"}', told='{"status": "in_progress"}',
)  # fmt: skip


def another(number: int, **changes: Any) -> BatchRecord:
    return replace(FIRST, id=f"batch_{number}", **changes)


@pytest.fixture
def batches(store: Any) -> Any:
    return store


async def test_a_record_comes_back_whole_and_to_its_account_only(batches: Any) -> None:
    for _ in range(2):
        await batches.add_batch(FIRST, 50)
    assert await batches.batch("acc_a", FIRST.id, NOW) == FIRST
    assert await batches.batches("acc_a", NOW) == [FIRST]
    assert await batches.batch("acc_b", FIRST.id, NOW) is None
    assert await batches.batches("acc_b", NOW) == []
    theirs = replace(FIRST, account="acc_b")
    assert await batches.change_batch(theirs, replace(theirs, due=NEVER)) is False
    await batches.remove_batch(theirs)
    assert await batches.batch("acc_a", FIRST.id, NOW) == FIRST


async def test_a_change_replaces_exactly_the_record_that_was_read(batches: Any) -> None:
    await batches.add_batch(FIRST, 50)
    seen = replace(FIRST, upstream="up-1", output="file-2")
    assert await batches.change_batch(FIRST, seen)
    assert await batches.change_batch(FIRST, replace(FIRST, upstream="up-2")) is False
    await batches.add_batch(FIRST, 50)  # a repeated call changes nothing
    assert await batches.batch("acc_a", FIRST.id, NOW) == seen
    await batches.remove_batch(seen)
    assert await batches.batch("acc_a", FIRST.id, NOW) is None
    assert await batches.change_batch(seen, FIRST) is False
    assert await batches.due_batches(NOW + 99, 10) == []


async def test_however_many_begin_at_once_no_more_run_than_may(batches: Any) -> None:
    asked = [another(number) for number in range(9)]
    answers = await asyncio.gather(*(batches.add_batch(each, 4) for each in asked), return_exceptions=True)
    assert [type(answer) for answer in answers].count(TooManyBatches) == 5
    assert len(running := await batches.batches("acc_a", NOW)) == 4
    with pytest.raises(TooManyBatches) as refused:
        await batches.add_batch(another(10), 4)
    assert refused.value.running == 4
    await batches.add_batch(running[0], 4)  # a repeated call takes no place
    await batches.add_batch(another(11, account="acc_b"), 4)
    assert await batches.change_batch(running[0], replace(running[0], due=NEVER))
    await batches.remove_batch(running[1])
    for number in (12, 13):
        await batches.add_batch(another(number), 4)
    with pytest.raises(TooManyBatches):
        await batches.add_batch(another(14), 4)


async def test_a_place_whose_process_died_is_free_after_some_time(shared: SharedTable) -> None:
    store: Any = shared.stores[0]
    shared.client.plan = lambda operation, request: Fault.REFUSED if operation == "PutItem" else None
    first = replace(FIRST, id=batch_id(NOW))
    with pytest.raises(StoreDown):
        await store.add_batch(first, 1)
    shared.client.plan = lambda operation, request: None
    with pytest.raises(TooManyBatches):
        await store.add_batch(another(2, created=NOW + ON_ITS_WAY), 1)
    await store.add_batch(another(2, created=NOW + ON_ITS_WAY + 1), 1)


def test_the_text_of_a_record_is_that_of_earlier_releases_as_long_as_it_can_be() -> None:
    assert len(json.loads(text_of(FIRST))) == 15
    for changed in (replace(FIRST, read="x"), FIRST.abandoned()):
        assert record_of(text_of(changed)) == changed
    later = json.dumps([*json.loads(text_of(FIRST.abandoned())), "of a later release"])
    assert record_of(later) == FIRST.abandoned()


async def test_what_is_due_comes_in_order_and_of_all_accounts(batches: Any) -> None:
    made = [another(1, due=NOW + 9), another(2, due=NOW), another(3, due=NOW + 5, account="acc_b")]
    for record in made:
        await batches.add_batch(record, 50)
    assert await batches.due_batches(NOW - 1, 10) == []
    assert await batches.due_batches(NOW + 5, 10) == [made[1], made[2]]
    assert len(await batches.due_batches(NOW + 9, 2)) == 2
    booked = replace(made[1], due=NEVER, expires=NOW + 100)
    assert await batches.change_batch(made[1], booked)
    assert [each.id for each in await batches.due_batches(NOW + 9, 10)] == ["batch_3", "batch_1"]
    assert await batches.batches("acc_a", NOW) == [made[0], booked]


async def test_an_ended_batch_is_forgotten_at_its_second(batches: Any) -> None:
    await batches.add_batch(FIRST, 50)
    await batches.change_batch(FIRST, replace(FIRST, due=NEVER, expires=NOW + 10))
    assert await batches.batch("acc_a", FIRST.id, NOW + 9)
    assert await batches.batch("acc_a", FIRST.id, NOW + 10) is None
    assert await batches.batches("acc_a", NOW + 10) == []
    assert await batches.due_batches(NOW + 10, 10) == []


async def test_the_lease_of_a_batch_is_settled_once(client: MakeClient, store: Any) -> None:
    ours = await client(credits=None)
    record = replace(FIRST, account=ours.id, key=ours.key.id)
    admission = await store.admit(record.id, ours.key, 1, NOW + 60, NOW)
    await store.renew([admission], record.lease)
    assert await store.settle(record.admission(), "kimi-k2.6", Usage(70, 5), NOW + 500)
    assert await store.settle(record.admission(), "kimi-k2.6", Usage(70, 5), NOW + 500) is False
    assert await store.release(record.admission(), "kimi-k2.6", True, NOW + 500) is False
    (row,) = await store.usage(NOW, ours.id)
    assert (row.requests, row.errors, row.input, row.output, row.credits) == (1, 0, 70, 5, 0)


async def test_a_change_whose_answer_was_lost_counts_as_done(shared: SharedTable) -> None:
    store: Any = shared.stores[0]
    await store.add_batch(FIRST, 50)
    seen, booked = replace(FIRST, upstream="up-1"), replace(FIRST, due=NEVER, upstream="up-1")
    shared.client.plan = in_turn(Fault.LOST_AFTER, None, Fault.LOST_AFTER)
    assert await store.change_batch(FIRST, seen)
    assert await store.change_batch(seen, booked)
    assert await store.due_batches(NOW + 99, 10) == []
