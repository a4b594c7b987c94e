"""Time-outs that cost a timer only where something waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kimi_gateway.net.watch import within


class CountingLoop(asyncio.SelectorEventLoop):
    timers = 0

    def call_at(self, *args: Any, **more: Any) -> Any:  # type: ignore[override]
        self.timers += 1
        return super().call_at(*args, **more)


def timers_of(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(work())
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        return loop.timers


async def at_once(value: int) -> int:
    if value < 0:
        raise ValueError(value)
    return value


async def after_turns(value: int) -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return await at_once(value)


def test_work_without_a_wait_sets_no_timer() -> None:
    async def both() -> None:
        assert await within(30, at_once(7)) == 7
        with pytest.raises(ValueError, match="-1"):
            await within(30, at_once(-1))

    assert timers_of(both) == 0


def test_work_that_waits_has_one_timer_and_its_own_result() -> None:
    async def both() -> None:
        assert await within(30, after_turns(7)) == 7
        with pytest.raises(ValueError, match="-1"):
            await within(30, after_turns(-1))

    assert timers_of(both) == 2


def test_work_that_waits_too_long_is_cancelled() -> None:
    seen: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def late() -> None:
        with pytest.raises(TimeoutError):
            await within(0.01, endless())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    assert timers_of(late) == 1
    assert seen == ["cancelled"]


def test_a_cancelled_caller_cancels_the_work() -> None:
    async def outer() -> None:
        wait = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await wait

        task = asyncio.create_task(work_within(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wait.cancelled()

    async def work_within(work: Coroutine[Any, Any, None]) -> None:
        await within(30, work)

    timers_of(outer)


def test_work_that_swallows_its_cancellation_goes_on() -> None:
    async def stubborn() -> int:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return 7

    async def outer() -> None:
        assert await within(0.01, stubborn()) == 7

    assert timers_of(outer) == 1
