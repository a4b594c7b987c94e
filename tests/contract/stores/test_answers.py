"""Every store of kept answers: who has a name, what comes back, and when it ends."""

from __future__ import annotations

import asyncio
import itertools
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.storage.answers import AnswerStore, Claim
from kimi_gateway.storage.dynamodb.answers import PART, DynamoAnswers
from kimi_gateway.storage.memory_answers import MemoryAnswers
from kimi_gateway.storage.sqlite.answers import TABLE, SqliteAnswers
from kimi_gateway.storage.sqlite.shelves import Shelves
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.dynamo_table import SharedTable
from support.faulty import Fault, in_turn
from support.store_client import NOW, ON_DYNAMODB, STORES

pytestmark = pytest.mark.anyio

LEASE, DAY = NOW + 660, NOW + 86_400
FIRST = Claim("asked", "first", LEASE)
SECOND = Claim("asked", "second", LEASE)


@pytest.fixture(params=STORES)
async def answers(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[AnswerStore]:
    url = request.getfixturevalue(f"{request.param}_url") if request.param in ON_DYNAMODB else ""
    async with STORES[request.param](tmp_path, url) as store:
        yield store.answers()  # type: ignore[attr-defined]


async def test_one_of_many_at_once_gets_the_name(answers: AnswerStore) -> None:
    claims = [replace(FIRST, owner=f"owner-{number}") for number in range(12)]
    held = await asyncio.gather(*(answers.claim_answer("a", "n", claim, NOW) for claim in claims))
    (winner,) = [claim.owner for claim, other in zip(claims, held, strict=True) if other is None]
    assert {other.owner for other in held if other is not None} == {winner}
    assert all(other is None or not other.done for other in held)


async def test_a_claim_is_the_accounts_own_and_may_be_repeated(answers: AnswerStore) -> None:
    for account in ("a", "b"):
        for _ in range(2):
            assert await answers.claim_answer(account, "n", FIRST, NOW) is None
    assert await answers.claim_answer("a", "m", SECOND, NOW) is None
    assert await answers.claim_answer("b", "n", SECOND, NOW) == FIRST
    assert await answers.find_answer("c", "n", NOW) is None


async def test_the_answer_comes_back_byte_for_byte_until_its_second(answers: AnswerStore) -> None:
    answer = random.Random(7).randbytes(2 * PART + 10)
    await answers.claim_answer("a", "n", FIRST, NOW)
    assert await answers.keep_answer("a", "n", "first", answer, DAY)
    kept = Claim("asked", "first", DAY, True, answer)
    assert await answers.claim_answer("a", "n", SECOND, DAY - 1) == kept
    assert await answers.find_answer("a", "n", DAY - 1) == kept
    assert await answers.find_answer("a", "n", DAY) is None
    assert await answers.claim_answer("a", "n", replace(SECOND, until=DAY + 9), DAY) is None


async def test_what_was_kept_first_stays(answers: AnswerStore) -> None:
    await answers.claim_answer("a", "n", FIRST, NOW)
    assert await answers.keep_answer("a", "n", "first", b"whole", DAY)
    assert await answers.keep_answer("a", "n", "first", None, DAY)
    await answers.drop_claim("a", "n", "first")
    await answers.renew_claim("a", "n", "first", DAY + 100)
    assert await answers.find_answer("a", "n", NOW) == Claim("asked", "first", DAY, True, b"whole")


async def test_an_answer_that_is_not_kept_is_known_to_be_done(answers: AnswerStore) -> None:
    await answers.claim_answer("a", "n", FIRST, NOW)
    assert await answers.keep_answer("a", "n", "first", None, DAY)
    assert await answers.claim_answer("a", "n", SECOND, NOW) == Claim("asked", "first", DAY, True, None)


async def test_a_dropped_claim_frees_its_name_and_only_its_own(answers: AnswerStore) -> None:
    await answers.claim_answer("a", "n", FIRST, NOW)
    await answers.drop_claim("a", "n", "second")
    assert await answers.claim_answer("a", "n", SECOND, NOW) == FIRST
    await answers.drop_claim("a", "n", "first")
    assert await answers.claim_answer("a", "n", SECOND, NOW) is None
    assert not await answers.keep_answer("a", "n", "first", b"late", DAY)
    assert await answers.find_answer("a", "n", NOW) == SECOND


async def test_the_claim_of_a_dead_process_ends_with_its_lease(answers: AnswerStore) -> None:
    await answers.claim_answer("a", "n", FIRST, NOW)
    await answers.renew_claim("a", "n", "first", LEASE + 100)
    await answers.renew_claim("a", "n", "second", LEASE + 500)
    late = replace(SECOND, until=LEASE + 1_000)
    assert await answers.claim_answer("a", "n", late, LEASE + 99) == replace(FIRST, until=LEASE + 100)
    assert await answers.claim_answer("a", "n", late, LEASE + 100) is None


async def test_the_oldest_answers_above_the_bound_are_forgotten_but_not_that_they_were_given(
    tmp_path: Path, anyio_backend: str
) -> None:
    store = SqliteStore(tmp_path / "db")
    shelves = Shelves(store._writer, store._read, TABLE, 250, 10_000)
    kinds: list[Any] = [MemoryAnswers(most_of_account=250), SqliteAnswers(store._writer, shelves)]
    for answers in kinds:
        for number, account in itertools.product(range(4), "ab"):
            await answers.claim_answer(account, f"{number}", FIRST, NOW)
            await answers.keep_answer(account, f"{number}", "first", bytes(100), DAY + number)
        for account in "ab":
            held = [await answers.find_answer(account, f"{number}", NOW) for number in range(4)]
            assert all(claim.done for claim in held)
            assert [claim.answer is None for claim in held] == [True, True, False, False]
    await store.purge(DAY + 2)
    assert await kinds[1].find_answer("a", "1", 0) is None
    assert await kinds[1].find_answer("a", "3", 0) is not None
    await store.close()


async def held_bytes(shared: SharedTable) -> int:
    """Those of all parts on the table."""
    store: Any = shared.stores[0]
    parts = [
        len(b64decode(item["v"]["B"]))
        for number in range(12)
        for item in await store._table.query(f"ANSWERS#a#{number}")
        if "v" in item
    ]
    return sum(parts)


async def test_an_account_has_a_bound_of_bytes_on_the_table(shared: SharedTable) -> None:
    store: Any = shared.stores[0]
    answers = DynamoAnswers(store._table, most_of_account=800)
    for number in range(10):
        await answers.claim_answer("a", f"{number}", FIRST, NOW)
        await answers.keep_answer("a", f"{number}", "first", bytes(90), DAY)
        assert await held_bytes(shared) <= 800
    held = [await answers.find_answer("a", f"{number}", NOW) for number in range(10)]
    assert all(claim and claim.done for claim in held)
    kept = [claim is not None and claim.answer is not None for claim in held]
    assert kept == sorted(kept)  # the newest
    assert 7 <= sum(kept) < 10


async def test_many_answers_at_once_stay_within_the_bound(shared: SharedTable) -> None:
    store: Any = shared.stores[0]
    answers = DynamoAnswers(store._table, most_of_account=800)

    async def one(name: str) -> None:
        await answers.claim_answer("a", name, FIRST, NOW)
        await answers.keep_answer("a", name, "first", bytes(40), DAY)

    await asyncio.gather(*(one(f"{number}") for number in range(6)))
    assert await held_bytes(shared) == 6 * 40
    held = [await answers.find_answer("a", f"{number}", NOW) for number in range(6)]
    assert all(claim and claim.answer == bytes(40) for claim in held)


async def test_an_answer_of_a_lost_claim_leaves_no_parts(shared: SharedTable) -> None:
    answers = DynamoAnswers(shared.stores[0]._table)
    await answers.claim_answer("a", "n", FIRST, NOW)
    assert await answers.keep_answer("a", "n", "second", bytes(40), DAY) is False
    assert await held_bytes(shared) == 0
    for _ in range(2):
        assert await answers.keep_answer("a", "n", "first", bytes(40), DAY)
    assert await held_bytes(shared) == 40


async def test_an_answer_of_an_earlier_release_comes_back(shared: SharedTable) -> None:
    store: Any = shared.stores[0]
    claim: Any = {"fp": {"S": "asked"}, "ow": {"S": "first"}, "un": {"N": str(DAY)}, "n": {"N": "1"}}
    await store._table.put("ANSWERS#a", "n", claim)
    await store._table.put("ANSWERS#a", "n 0", {"v": {"B": b64encode(b"old").decode()}})
    held = await DynamoAnswers(store._table).find_answer("a", "n", NOW)
    assert held is not None
    assert held.answer == b"old"


async def test_an_answer_costs_its_kilobytes_and_three_units(shared: SharedTable) -> None:
    answers = DynamoAnswers(shared.stores[0]._table)
    await answers.claim_answer("a", "m", FIRST, NOW)
    await answers.keep_answer("a", "m", "first", b"whole", DAY)  # which begins the segment
    shared.client.calls.clear()
    await answers.claim_answer("a", "n", FIRST, NOW)
    await answers.keep_answer("a", "n", "first", bytes(3_000), DAY)
    assert shared.client.calls == {"UpdateItem": 3, "PutItem": 1}


async def test_a_call_whose_answer_was_lost_is_repeated(shared: SharedTable) -> None:
    answers = DynamoAnswers(shared.stores[0]._table)
    for step in (
        lambda: answers.claim_answer("a", "n", FIRST, NOW),
        lambda: answers.keep_answer("a", "n", "first", b"whole", DAY),
    ):
        shared.client.plan = in_turn(Fault.LOST_AFTER)
        try:
            await step()
        except StoreDown:
            await step()
    held = await answers.find_answer("a", "n", NOW)
    assert held is not None
    assert held.answer == b"whole"
