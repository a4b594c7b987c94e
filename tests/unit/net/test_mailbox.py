"""The queue between upstreams and the client: order, room, silence, interruption."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps

import pytest

from kimi_gateway.net.mailbox import Mailbox
from support.idle import settle

LONG = 30.0


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 5))  # type: ignore[arg-type]

    return run


@on_a_loop
async def test_items_come_in_their_order() -> None:
    box = Mailbox[int]()
    for number in range(3):
        await box.put(number)
    assert [await box.get(LONG) for _ in range(3)] == [0, 1, 2]


@on_a_loop
async def test_silence_gives_none_and_loses_nothing() -> None:
    box = Mailbox[int]()
    assert await box.get(0.01) is None
    assert await box.get(0) is None
    await box.put(1)
    assert await box.get(0.01) == 1


@on_a_loop
async def test_a_waiting_reader_gets_what_comes() -> None:
    box = Mailbox[int]()
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    await box.put(1)
    assert await reader == 1


@on_a_loop
async def test_a_full_box_makes_its_writers_wait_and_takes_them_in_turn() -> None:
    box = Mailbox[int](limit=2)
    writers = [asyncio.create_task(box.put(number)) for number in range(5)]
    await settle()
    assert [writer.done() for writer in writers] == [True, True, False, False, False]
    for number in range(5):
        assert await box.get(LONG) == number
        await settle()
    assert all(writer.done() for writer in writers)


@on_a_loop
async def test_a_writer_that_gives_up_blocks_nobody() -> None:
    box = Mailbox[int](limit=1)
    writers = [asyncio.create_task(box.put(number)) for number in range(3)]
    await settle()
    writers[1].cancel()
    await settle()
    for _ in range(3):
        await box.get(LONG)
    await asyncio.wait_for(writers[2], 5)


@on_a_loop
async def test_an_interruption_comes_before_what_waits() -> None:
    box = Mailbox[int]()
    await box.put(1)
    box.interrupt(ValueError("enough"))
    for _ in range(2):  # and stays
        with pytest.raises(ValueError, match="enough"):
            await box.get(LONG)


@on_a_loop
async def test_an_interruption_wakes_a_waiting_reader() -> None:
    box = Mailbox[int]()
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    box.interrupt(ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        await reader


@on_a_loop
async def test_a_reader_that_gives_up_leaves_the_item_to_the_next() -> None:
    box = Mailbox[int]()
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    reader.cancel()
    await settle()
    await box.put(1)
    assert await box.get(LONG) == 1


@on_a_loop
async def test_an_offer_is_taken_at_once_or_not_at_all() -> None:
    box = Mailbox[int](limit=2)
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    assert box.offer(0)
    assert await reader == 0
    assert [box.offer(number) for number in (1, 2, 3)] == [True, True, False]
    assert [await box.get(LONG), await box.get(LONG)] == [1, 2]
    assert await box.get(0) is None
