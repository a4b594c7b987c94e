"""Waits that continue their task at once, from a callback of the loop and through several tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from kimi_gateway.net.mailbox import MOST, Wakeup
from support.idle import settle

pytestmark = pytest.mark.anyio
named: ContextVar[str] = ContextVar("named", default="")


def in_a_callback(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> asyncio.Future[list[str]]:
    """What was done when the callback had run `step`."""
    done: asyncio.Future[list[str]] = loop.create_future()

    def run() -> None:
        step()
        done.set_result(list(log))

    loop.call_soon(run)
    return done


log: list[str] = []


async def waits(wakeup: Wakeup, name: str, then: Wakeup | None = None) -> str:
    named.set(name)
    await wakeup
    log.append(name)
    if then is not None:
        then.give()
        log.append(f"{name} gave")
    return named.get()


@pytest.fixture(autouse=True)
def _empty() -> None:
    log.clear()


async def test_a_callback_continues_the_task_at_once_and_in_its_own_context() -> None:
    loop = asyncio.get_running_loop()
    wakeup = Wakeup(loop)
    task = asyncio.create_task(waits(wakeup, "a"))
    await settle()
    assert await in_a_callback(loop, wakeup.give) == ["a"]
    assert await task == "a"


async def test_a_continued_task_continues_the_next_one_when_it_waits_again() -> None:
    loop = asyncio.get_running_loop()
    first, second = Wakeup(loop), Wakeup(loop)
    tasks = [asyncio.create_task(waits(first, "a", second)), asyncio.create_task(waits(second, "b"))]
    await settle()
    assert await in_a_callback(loop, first.give) == ["a", "a gave", "b"]
    assert await asyncio.gather(*tasks) == ["a", "b"]


async def test_from_a_task_and_soon_the_loop_continues_it() -> None:
    loop = asyncio.get_running_loop()
    for give in ("give", "give_soon"):
        wakeup = Wakeup(loop)
        task = asyncio.create_task(waits(wakeup, give))
        await settle()
        getattr(wakeup, give)()
        assert give not in log
        assert await task == give
    wakeup = Wakeup(loop)
    task = asyncio.create_task(waits(wakeup, "c"))
    await settle()
    assert "c" not in await in_a_callback(loop, wakeup.give_soon)
    assert await task == "c"


async def test_tasks_that_wake_one_another_leave_the_loop_its_turn() -> None:
    loop = asyncio.get_running_loop()
    wakeups = [Wakeup(loop), Wakeup(loop)]
    rounds = 0

    async def plays(mine: Wakeup, other: Wakeup) -> None:
        nonlocal rounds
        while rounds < 100:
            await mine
            rounds += 1
            other.give()

    tasks = [asyncio.create_task(plays(*wakeups)), asyncio.create_task(plays(*wakeups[::-1]))]
    await settle()
    told = loop.create_future()
    loop.call_soon(lambda: (wakeups[0].give(), told.set_result(rounds)))
    assert await told <= MOST
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_wake_up_without_a_waiting_task_is_not_remembered() -> None:
    wakeup = Wakeup(asyncio.get_running_loop())
    wakeup.give()
    wakeup.give_soon()
    task = asyncio.create_task(waits(wakeup, "a"))
    await settle()
    assert not task.done()
    wakeup.give()
    assert await task == "a"


async def test_a_cancelled_wait_raises_and_can_be_repeated() -> None:
    wakeup = Wakeup(asyncio.get_running_loop())
    task = asyncio.create_task(waits(wakeup, "a"))
    await settle()
    task.cancel()
    wakeup.give()  # too late
    with pytest.raises(asyncio.CancelledError):
        await task
    again = asyncio.create_task(waits(wakeup, "b"))
    await settle()
    wakeup.give()
    assert await again == "b"
    assert log == ["b"]


async def test_a_task_cancelled_behind_its_wake_up_is_cancelled() -> None:
    wakeup = Wakeup(asyncio.get_running_loop())
    task = asyncio.create_task(waits(wakeup, "a"))
    await settle()
    wakeup.give_soon()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == []


async def test_a_task_that_was_woken_and_not_continued_can_be_cancelled() -> None:
    loop = asyncio.get_running_loop()
    first, second = Wakeup(loop), Wakeup(loop)
    other = asyncio.create_task(waits(second, "b"))

    async def cancels() -> None:
        await first
        second.give()
        other.cancel()

    task = asyncio.create_task(cancels())
    await settle()
    assert await in_a_callback(loop, first.give) == []
    await task
    with pytest.raises(asyncio.CancelledError):
        await other
    assert log == []


async def test_one_task_at_a_time() -> None:
    wakeup = Wakeup(asyncio.get_running_loop())
    first = asyncio.create_task(waits(wakeup, "a"))
    await settle()
    with pytest.raises(RuntimeError, match="two tasks"):
        await wakeup
    wakeup.give()
    await first


async def test_what_a_continued_task_raises_stays_its_own() -> None:
    loop = asyncio.get_running_loop()
    first, second = Wakeup(loop), Wakeup(loop)

    async def breaks() -> None:
        await first
        second.give()
        raise ValueError("its own")

    broken, waiting = asyncio.create_task(breaks()), asyncio.create_task(waits(second, "b"))
    await settle()
    assert await in_a_callback(loop, first.give) == ["b"]
    with pytest.raises(ValueError, match="its own"):
        await broken
    await waiting
