"""A turn's clock and its one outcome, without sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kimi_gateway.accounts.ledger import Reservation
from kimi_gateway.accounts.places import Places
from kimi_gateway.accounts.values import Admission, Key, Usage
from kimi_gateway.errors import GatewayError, ShuttingDown, Unavailable
from kimi_gateway.flow.attempts import Ended, Item
from kimi_gateway.flow.turn import Turn
from kimi_gateway.net.mailbox import Mailbox
from kimi_gateway.providers.failures import UpstreamFailure

Script = Callable[[Mailbox[Item]], Coroutine[Any, Any, None]]


class Calls:
    """An upstream call that does what a test says."""

    given_up, follower = "", None

    def __init__(self, script: Script, box: Mailbox[Item]) -> None:
        self.script, self.box = script, box
        self.content_sent = self.ended = self.empty = False

    @property
    def last(self) -> Calls:
        return self

    async def run(self) -> None:
        await self.script(self.box)


class Book:
    """A ledger that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

        self.places = Places(1)
        self.written = True

    async def admit(self, request: str, key: Key, cost: int, *more: object) -> Admission:
        return Admission(request, key, cost, 1, 9, None)

    def opened(self, admission: Admission) -> None:
        self.told.append("open")

    async def settle(self, *about: Any) -> bool:
        self.told.append("settle")
        return self.written

    async def release(self, admission: Admission, model: str, error: bool, *more: object) -> bool:
        self.told.append("release, an error" if error else "release")
        return self.written


class Quiet(Turn):
    """Counts no tokens."""

    def usage(self) -> dict[str, Any]:
        return {}

    def spent(self, estimated: bool = False) -> Usage:
        return Usage()


async def turn(script: Script) -> tuple[Turn, Book, Calls]:
    book = Book()
    reservation = await Reservation(book, book, Key("k", "d", "a"), 1, "m", "", 1).__aenter__()  # type: ignore[arg-type]
    one = Quiet(reservation, set())
    call = Calls(script, one.rounds.box)
    one.rounds.begin([call])  # type: ignore[list-item]
    return one, book, call


async def never(box: Mailbox[Item]) -> None:
    await asyncio.sleep(60)


async def always(box: Mailbox[Item]) -> None:
    while True:
        await box.put([])


async def whole(box: Mailbox[Item]) -> None:
    await box.put([])
    await box.put(Ended())


async def broken(box: Mailbox[Item]) -> None:
    await box.put(UpstreamFailure("broken"))


async def read(turn: Turn, silence: float = 60, longest: float = math.inf) -> int:
    count = 0
    async for _ in turn.rounds.chunks(silence, longest):
        count += 1
        await asyncio.sleep(0)
    return count


@pytest.mark.parametrize("script", [never, always], ids=["silent", "always ahead"])
def test_the_longest_time_holds_whatever_waits_in_the_box(script: Script) -> None:
    async def scenario() -> None:
        one, book, _ = await turn(script)
        with pytest.raises(Unavailable, match="longer than"):
            await asyncio.wait_for(read(one, longest=0.05), 5)
        await one.fail()
        await one.close()
        assert book.told == ["open", "release, an error"]

    asyncio.run(scenario())


def test_silence_is_reported_as_often_as_it_lasts() -> None:
    async def scenario() -> None:
        one, _, _ = await turn(never)
        chunks = one.rounds.chunks(0.01, math.inf)
        assert [await anext(chunks) for _ in range(3)] == [[], [], []]
        await chunks.aclose()
        await one.close()

    asyncio.run(scenario())


async def settled(one: Turn, call: Calls) -> None:
    assert await read(one) == 1
    await one.settle()


async def failed(one: Turn, call: Calls) -> None:
    with pytest.raises(GatewayError):
        await read(one)
    await one.fail()


async def left(one: Turn, call: Calls) -> None:
    await anext(one.rounds.chunks(0, math.inf))


async def left_after_content(one: Turn, call: Calls) -> None:
    await left(one, call)
    call.content_sent = True


async def interrupted_unheard(one: Turn, call: Calls) -> None:
    await left_after_content(one, call)
    one.interrupt(ShuttingDown())


async def settled_and_interrupted(one: Turn, call: Calls) -> None:
    await settled(one, call)
    one.interrupt(ShuttingDown())


@pytest.mark.parametrize(
    ("script", "course", "outcome"),
    [
        (whole, settled, "settle"),
        (broken, failed, "release, an error"),
        (never, left, "release"),
        (always, left_after_content, "settle"),
        (always, interrupted_unheard, "release, an error"),
        (whole, settled_and_interrupted, "settle"),
    ],
)
def test_the_outcome_is_decided_once(
    script: Script, course: Callable[[Turn, Calls], Coroutine[Any, Any, None]], outcome: str
) -> None:
    async def scenario() -> None:
        one, book, call = await turn(script)
        await course(one, call)
        for _ in range(2):
            await one.close()
        await one.fail()
        await one.settle()
        assert book.told == ["open", outcome]

    asyncio.run(scenario())


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize(
    ("script", "course", "outcome"),
    [
        (whole, settled, "settled"),
        (broken, failed, "failed"),
        (never, left, "left_released"),
        (always, left_after_content, "left_settled"),
    ],
)
def test_an_outcome_is_told_when_the_store_has_written_it(
    script: Script, course: Callable[[Turn, Calls], Coroutine[Any, Any, None]], outcome: str, written: bool
) -> None:
    async def scenario() -> None:
        one, book, call = await turn(script)
        book.written = written
        await course(one, call)
        await one.close()
        assert one.outcome == (outcome if written else "unwritten")

    asyncio.run(scenario())
