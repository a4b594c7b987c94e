"""The queue between upstreams and the client: order, room, silence, interruption."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps

import pytest

from kimi_gateway.net.mailbox import Mailbox
from support.idle import settle
from support.turns import SkippingLoop

LONG = 30.0


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]

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


@on_a_loop
async def test_an_item_goes_past_a_waiting_reader_only_if_nothing_waits_before_it() -> None:
    box, past, taking = Mailbox[int](), list[int](), True

    def direct(item: int) -> bool:
        if taking:
            past.append(item)
        return taking

    box.direct = direct
    assert box.offer(0)  # nobody waits yet
    assert await box.get(LONG) == 0
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    assert box.offer(1)
    assert box.offer(2)
    assert (past, reader.done()) == ([1, 2], False)
    taking = False
    assert box.offer(3)
    taking = True
    assert box.offer(4)  # it may not overtake the one before
    assert await reader == 3
    assert (past, await box.get(LONG)) == ([1, 2], 4)


@on_a_loop
async def test_nothing_goes_past_a_reader_that_was_interrupted() -> None:
    box, past = Mailbox[int](), list[int]()
    box.direct = lambda item: not past.append(item)  # type: ignore[func-returns-value]
    reader = asyncio.create_task(box.get(LONG))
    await settle()
    box.interrupt(ValueError("enough"))
    assert box.offer(1)
    with pytest.raises(ValueError, match="enough"):
        await reader
    assert past == []


@pytest.mark.parametrize(("timeout", "longest", "ends"), [(2.0, 60.0, 6.0), (2.0, 3.0, 3.0)])
def test_what_goes_past_ends_the_silence_but_not_the_longest_time(
    timeout: float, longest: float, ends: float
) -> None:
    """Items go past after 1, 2, 3 and 4 seconds."""
    loop = SkippingLoop()

    async def run() -> None:
        box = Mailbox[int]()
        box.direct = lambda item: True
        begun = loop.time()
        for second in (1, 2, 3, 4):
            loop.call_at(begun + second, box.offer, second)
        assert await box.get(timeout, longest) is None
        assert round(loop.time() - begun, 6) == ends

    loop.run_until_complete(run())
    loop.close()
