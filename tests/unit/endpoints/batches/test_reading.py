"""The output of a batch is counted exactly, however often its reading is broken off."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from kimi_gateway.accounts.batches import BatchRecord
from kimi_gateway.accounts.values import NEVER
from kimi_gateway.endpoints.batches import tally as tallies
from kimi_gateway.endpoints.batches.saving import SAVED_EVERY, ReadElsewhere, Saving
from kimi_gateway.endpoints.batches.tally import Tally, of_lines, steady
from kimi_gateway.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
RECORD = BatchRecord("batch_1", "acc_a", "key_a", "tok", NOW, "file-1", "24h", NOW + 600, NOW)


def line(number: int) -> bytes:
    usage = {"prompt_tokens": number, "completion_tokens": 1}
    return json.dumps({"response": {"body": {"model": "kimi-k2.6", "usage": usage}}}).encode()


LINES = [line(1), b"", line(2), b"not JSON", line(3), line(4)]


class BrokenOff(Exception):
    pass


async def pieces(data: bytes, sizes: Sequence[int], breaks: int | None = None) -> AsyncIterator[bytes]:
    """The data in pieces; before the piece `breaks` the reading ends."""
    at = 0
    for number, size in enumerate([*sizes, len(data)]):
        if number == breaks and at < len(data):
            raise BrokenOff
        if data[at : at + size]:
            yield data[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ending", [b"", b"\n"])
async def test_readings_that_break_off_anywhere_count_each_line_once(
    seed: int, ending: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "LONGEST_LINE", 200)
    chance = random.Random(seed)
    data = b"\n".join([*LINES, b"x" * 900, line(5)]) + ending
    whole = Tally()
    await of_lines(pieces(data, []), whole)
    assert (whole.input, whole.output, whole.answers, whole.unread, whole.at) == (15, 5, 5, 2, len(data))
    saved = ""
    for _ in range(200):
        tally = Tally.of(saved)
        sizes = [chance.randrange(1, 90) for _ in range(40)]

        async def save(tally: Tally = tally) -> None:
            nonlocal saved
            saved = tally.text

        try:
            await of_lines(pieces(data[tally.at :], sizes, chance.randrange(1, 12)), tally, save)
        except BrokenOff:
            continue
        break
    assert replace(tally, at=0) == replace(whole, at=0)
    assert tally.at == len(data)


class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


async def test_notes_are_written_from_time_to_time_over_other_changes() -> None:
    store, clock, tally = MemoryStore(), Clock(), Tally(input=5, at=10)
    await store.add_batch(RECORD, 1)
    saving = Saving(store, RECORD, tally, clock)
    await saving.save()
    assert await store.batch("acc_a", "batch_1", NOW) == RECORD  # not yet
    clock.now += SAVED_EVERY
    seen = replace(RECORD, told='{"status": "completed"}')
    await store.change_batch(RECORD, seen)
    await saving.save()
    assert saving.record == replace(seen, read=tally.text) == await store.batch("acc_a", "batch_1", NOW)


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORD, read=Tally(at=99).text),
        replace(RECORD, due=NEVER, expires=NEVER),
        RECORD.abandoned(),
        None,
    ],
)
async def test_a_reading_ends_where_another_process_is_ahead(other: BatchRecord | None) -> None:
    store, clock = MemoryStore(), Clock()
    await store.add_batch(RECORD, 1)
    saving = Saving(store, RECORD, Tally(at=10), clock)
    clock.now += SAVED_EVERY
    if other is None:
        await store.remove_batch(RECORD)
    else:
        await store.change_batch(RECORD, other)
    with pytest.raises(ReadElsewhere):
        await saving.save()


async def test_a_patient_reading_goes_on_and_notes_nothing_until_it_is_ahead() -> None:
    store, clock, tally = MemoryStore(), Clock(), Tally(at=10)
    await store.add_batch(RECORD, 1)
    ahead = replace(RECORD, read=Tally(at=99).text)
    await store.change_batch(RECORD, ahead)
    saving = Saving(store, RECORD, tally, clock, patient=True)
    for at, noted in ((10, 99), (60, 99), (120, 120)):
        clock.now += SAVED_EVERY
        tally.at = at
        await saving.save()
        found = await store.batch("acc_a", "batch_1", NOW)
        assert found is not None
        assert Tally.of(found.read).at == noted
    await store.change_batch(saving.record, replace(saving.record, due=NEVER))
    clock.now += SAVED_EVERY
    tally.at = 130
    with pytest.raises(ReadElsewhere):  # booked
        await saving.save()


async def test_a_silent_upstream_ends_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "SILENCE", 0.01)

    async def silent() -> AsyncIterator[bytes]:
        yield line(1) + b"\n"
        await asyncio.Event().wait()

    tally = Tally()
    with pytest.raises(TimeoutError):
        await of_lines(steady(silent()), tally)
    assert tally.answers == 1
