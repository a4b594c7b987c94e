"""A task that begins at once, from a callback of the loop and from within another task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kimi_gateway.net.mailbox import begin

log: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    log.clear()


async def works(name: str, inner: Callable[[], object] = lambda: None) -> str:
    log.append(f"{name} begins in {of_now()}")
    inner()
    log.append(f"{name} waits in {of_now()}")
    await asyncio.sleep(0)
    return name


def of_now() -> str:
    task = asyncio.current_task()
    return "no task" if task is None else task.get_coro().__qualname__  # type: ignore[union-attr]


def test_it_runs_up_to_its_first_wait() -> None:
    async def outer() -> None:
        loop = asyncio.get_running_loop()
        task = begin(loop, works("a", lambda: begin(loop, works("b"))))
        log.append(f"back in {of_now().rpartition('.')[2]}")
        assert await task == "a"

    asyncio.run(outer())
    assert log == [
        "a begins in works", "b begins in works", "b waits in works", "a waits in works", "back in outer",
    ]  # fmt: skip


def test_from_a_callback_there_is_no_task_before_and_after() -> None:
    async def outer() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def callback() -> None:
            begin(loop, works("a"))
            log.append(f"back in {of_now()}")
            done.set_result(None)

        loop.call_soon(callback)
        await done

    asyncio.run(outer())
    assert log == ["a begins in works", "a waits in works", "back in no task"]


def test_work_that_never_waits_is_done() -> None:
    async def outer() -> None:
        async def answer() -> int:
            return 5

        async def fails() -> None:
            raise ValueError("broken")

        loop = asyncio.get_running_loop()
        task = begin(loop, answer())
        assert task.done()
        assert task.result() == 5
        with pytest.raises(ValueError, match="broken"):
            await begin(loop, fails())

    asyncio.run(outer())


def test_it_can_be_cancelled() -> None:
    async def outer() -> None:
        task = begin(asyncio.get_running_loop(), works("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(outer())


class Finalizing(asyncio.SelectorEventLoop):
    """A finalizer runs while a task is made, and asks the loop for a callback."""

    ran = False

    def get_debug(self) -> bool:
        if self.is_running() and not self.ran:
            self.ran = True
            self.call_soon(log.append, "finalized")
        return super().get_debug()


def test_what_others_ask_of_the_loop_meanwhile_runs_in_its_turn() -> None:
    async def outer() -> None:
        task = begin(loop, works("a"))
        log.append("begun")
        await task

    loop: Any = Finalizing()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        loop.ran = True
        runner.run(asyncio.sleep(0))
        loop.ran = False
        runner.run(outer())
    assert sorted(log) == ["a begins in works", "a waits in works", "begun", "finalized"]
