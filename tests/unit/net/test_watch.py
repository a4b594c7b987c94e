"""Time-outs that share one timer of the loop, and one that work which never waits does not set."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any

import pytest

from kimi_gateway.net.watch import KEPT, Alarms, alarms, within

pytestmark = pytest.mark.anyio
named: ContextVar[str] = ContextVar("named", default="")


class Loop:
    """A clock that a test moves, and at most one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set = 0
        self.due, self.ring = math.inf, None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, ring: Callable[[], object], context: object = None) -> Any:
        self.set += 1
        self.due, self.ring = when, ring  # type: ignore[assignment]
        return self

    def cancel(self) -> None:
        self.due, self.ring = math.inf, None

    def go_to(self, when: float) -> None:
        while self.due <= when:
            self.now, ring = max(self.now, self.due), self.ring
            self.cancel()
            assert ring is not None
            ring()
        self.now = when


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.mark.parametrize("seed", range(20))
async def test_each_alarm_rings_once_at_its_time_unless_it_was_cancelled(loop: Loop, seed: int) -> None:
    chosen, rang, due = random.Random(seed), dict[int, float](), dict[int, float]()
    clock = Alarms(loop)  # type: ignore[arg-type]

    def rings(number: int) -> Callable[[], None]:
        def ring() -> None:
            rang[number] = loop.now

        return ring

    waiting: dict[int, list[Any]] = {}
    for number in range(400):
        due[number] = loop.now + chosen.choice((0.0, 0.5, 2.0, 60.0))
        waiting[number] = clock.set(due[number], rings(number))
        if chosen.random() < 0.8:
            for gone in chosen.sample(sorted(waiting), min(2, len(waiting))):
                clock.cancel(waiting.pop(gone))
                if gone not in rang:
                    del due[gone]
        loop.go_to(loop.now + chosen.random())
    loop.go_to(loop.now + 100)
    assert rang == due
    assert clock.size == 0


async def test_many_short_time_outs_need_few_timers_and_little_memory(loop: Loop) -> None:
    clock = Alarms(loop)  # type: ignore[arg-type]
    for _ in range(10_000):
        clock.cancel(clock.set(loop.now + 60, dict))
        loop.go_to(loop.now + 0.001)
    assert loop.set == 1
    assert clock.size <= KEPT + 1


async def test_an_alarm_that_breaks_does_not_keep_others(loop: Loop) -> None:
    rang, clock = list[str](), Alarms(loop)  # type: ignore[arg-type]
    clock.set(1, lambda: 1 / 0)
    clock.set(1, lambda: rang.append("second"))
    with pytest.raises(ZeroDivisionError):
        loop.go_to(2)
    loop.go_to(3)
    assert rang == ["second"]


async def test_a_cancelled_alarm_holds_nothing_and_no_alarm_has_a_requests_context() -> None:
    clock, seen = Alarms(asyncio.get_running_loop()), list[str]()
    named.set("a request")
    now = asyncio.get_running_loop().time()
    rang = asyncio.Event()

    def ring() -> None:
        seen.append(named.get())
        rang.set()

    clock.set(now, ring)
    alarm = clock.set(now + 60, dict)
    clock.cancel(alarm)
    assert alarm[2] is None
    await rang.wait()
    assert seen == [""]


async def test_each_loop_has_alarms_of_its_own() -> None:
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    assert alarms(loops[0]) is alarms(loops[0]) is not alarms(loops[1])
    for each in loops:
        each.close()


class Refused(Exception):
    pass


async def answers(waits: asyncio.Future[str] | None = None, fails: bool = False) -> str:
    told = "" if waits is None else await waits
    if fails:
        raise Refused
    return told or "at once"


async def timers_of(step: Awaitable[Any]) -> int:
    loop: Any = asyncio.get_running_loop()
    made, call_at = 0, loop.call_at

    def counted(*given: Any, **more: Any) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        timer: asyncio.TimerHandle = call_at(*given, **more)
        return timer

    loop.call_at = counted
    try:
        await step
    finally:
        del loop.call_at
    return made


async def test_work_that_never_waits_sets_no_timer() -> None:
    assert await within(1, answers()) == "at once"
    assert await timers_of(within(1, answers())) == 0
    with pytest.raises(Refused):
        await within(1, answers(fails=True))


async def test_work_that_waits_goes_on_within_its_time() -> None:
    loop = asyncio.get_running_loop()
    for fails in (False, True):
        future = loop.create_future()
        loop.call_soon(future.set_result, "later")
        if fails:
            with pytest.raises(Refused):
                await within(60, answers(future, fails=True))
        else:
            assert await within(60, answers(future)) == "later"


async def test_work_that_waits_too_long_is_cancelled() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(0, answers(future))
    assert future.cancelled()


async def cancelled_while_it_waits() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(within(60, answers(future)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()


async def test_its_task_can_be_cancelled_and_leaves_no_cycle() -> None:
    await cancelled_while_it_waits()
    gc.collect()
    gc.disable()
    try:
        await cancelled_while_it_waits()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each.f_code.co_name for each in gc.garbage if isinstance(each, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert "_waiting" not in left
