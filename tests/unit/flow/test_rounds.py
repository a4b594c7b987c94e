"""The rounds of a turn without sockets: their order, their bounds, and what is left when they stop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kimi_gateway.errors import GatewayError, ShuttingDown, Unavailable
from kimi_gateway.flow.attempts import Ended, UpstreamCall
from kimi_gateway.flow.rounds import MOST_ROUNDS, Rounds
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.providers.failures import UpstreamFailure


class Call:
    """An upstream call that puts what a test says, then its end."""

    def __init__(self, rounds: Rounds, *items: Any) -> None:
        self._box, self._items = rounds.box, items
        self.content_sent = self.ended = False

    async def run(self) -> None:
        for item in self._items:
            await self._box.put(item)
        await self._box.put(Ended())
        self.ended = True


class Steps:
    """A planner with one step for each further round."""

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self.steps = list(steps)
        self.cancelled = False

    def shown(self, chunks: list[Chunk]) -> list[Chunk]:
        return [chunk for chunk in chunks if not _text(chunk).startswith("hidden")]

    async def next(self) -> Sequence[UpstreamCall]:
        if not self.steps:
            return ()
        try:
            calls: Sequence[UpstreamCall] = await self.steps.pop(0)()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return calls


def chunk(text: str, **delta: Any) -> list[Chunk]:
    body = {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": None}]}
    return [Chunk(body, bool(text), False, b"as it came")]


def _text(chunk: Chunk) -> str:
    return str(chunk.body["choices"][0]["delta"].get("content"))


def begun(*items: Any, steps: Callable[[Rounds], Sequence[Callable[[], Any]]]) -> tuple[Rounds, Steps]:
    rounds = Rounds()
    planner = Steps(*steps(rounds))
    rounds.begin([Call(rounds, *items)], planner=planner)  # type: ignore[list-item]
    return rounds, planner


def giving(rounds: Rounds, *items: Any) -> Callable[[], Any]:
    async def step() -> list[Call]:
        return [Call(rounds, *items)]

    return step


async def hangs() -> None:
    await asyncio.Event().wait()


async def read(rounds: Rounds, longest: float = math.inf) -> list[list[str]]:
    return [[_text(each) for each in some] async for some in rounds.chunks(60, longest)]


def test_rounds_follow_one_another_and_each_of_a_rounds_calls_is_waited_for() -> None:
    async def scenario() -> None:
        rounds = Rounds()

        async def two() -> list[Call]:
            return [Call(rounds, chunk("b")), Call(rounds, chunk("c"), chunk("d"))]

        planner = Steps(two, giving(rounds, chunk("e")))
        rounds.begin([Call(rounds, chunk("a"))], planner=planner)  # type: ignore[list-item]
        came = [text for some in await read(rounds) for text in some]
        assert (came[0], sorted(came[1:4]), came[4:]) == ("a", ["b", "c", "d"], ["e"])
        assert (len(rounds.calls), planner.steps, rounds.stop(True, set())) == (4, [], [])

    asyncio.run(scenario())


def test_what_the_planner_keeps_back_is_neither_shown_nor_paid_for() -> None:
    async def scenario() -> None:
        rounds, _ = begun(chunk("hidden"), steps=lambda rounds: [giving(rounds, chunk("", role="assistant"))])
        rounds.calls[0].content_sent = True
        assert await read(rounds) == [[""]]
        assert not rounds.content_sent  # a role is no content
        rounds, _ = begun(chunk("hidden"), steps=lambda rounds: [giving(rounds, chunk("x"))])
        assert await read(rounds) == [["x"]]
        assert rounds.content_sent

    asyncio.run(scenario())


def test_the_role_is_named_once() -> None:
    async def scenario() -> None:
        role = {"role": "assistant"}
        rounds, _ = begun(
            chunk("hidden", **role),
            chunk("a", **role),
            steps=lambda rounds: [giving(rounds, chunk("b", **role), chunk("c"))],
        )
        came = [each async for some in rounds.chunks(60, math.inf) for each in some]
        roles = [each.body["choices"][0]["delta"].get("role") for each in came]
        assert roles == ["assistant", None, None]
        assert [each.data for each in came] == [b"as it came", b"", b"as it came"]

    asyncio.run(scenario())


def test_a_planner_shows_what_it_kept_back_when_it_knows_that_no_round_follows() -> None:
    async def scenario() -> None:
        rounds = Rounds()

        async def last() -> list[Call]:
            await rounds.show([])
            await rounds.show(chunk("the rest", role="assistant"))
            return []

        rounds.begin(
            [Call(rounds, chunk("a", role="assistant"), chunk("hidden"))],  # type: ignore[list-item]
            planner=Steps(last),
        )
        assert await read(rounds) == [["a"], ["the rest"]]
        assert rounds.content_sent

    asyncio.run(scenario())


def test_silence_is_reported_while_a_tool_works() -> None:
    async def scenario() -> None:
        rounds, planner = begun(chunk("a"), steps=lambda rounds: [hangs])
        coming = rounds.chunks(0.01, math.inf)
        assert [len(await anext(coming)) for _ in range(4)] == [1, 0, 0, 0]
        await coming.aclose()
        (cancelled,) = rounds.stop(False, set())
        await asyncio.wait([cancelled])
        assert planner.cancelled

    asyncio.run(scenario())


async def fails() -> None:
    raise Unavailable("The tool is out of order.")


async def fails_upstream() -> None:
    raise UpstreamFailure("server")


async def crashes() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("step", "error"),
    [(fails, Unavailable), (fails_upstream, Unavailable), (crashes, ZeroDivisionError), (hangs, Unavailable)],
    ids=["the tool fails", "its upstream fails", "a crash", "too long"],
)
def test_a_planner_that_fails_or_hangs_ends_the_turn(step: Callable[[], Any], error: type[Exception]) -> None:
    async def scenario() -> None:
        rounds, _ = begun(chunk("a"), steps=lambda rounds: [step])
        with pytest.raises(error):
            await asyncio.wait_for(read(rounds, longest=0.05 if step is hangs else math.inf), 5)
        if cancelled := rounds.stop(False, set()):
            await asyncio.wait(cancelled)

    asyncio.run(scenario())


def test_a_shutdown_interrupts_a_tool() -> None:
    async def scenario() -> None:
        rounds, planner = begun(steps=lambda rounds: [hangs])
        reading = asyncio.create_task(read(rounds))
        while len(planner.steps):  # noqa: ASYNC110
            await asyncio.sleep(0)
        rounds.box.interrupt(ShuttingDown())
        with pytest.raises(ShuttingDown):
            await reading
        await asyncio.wait(rounds.stop(False, set()))
        assert planner.cancelled

    asyncio.run(scenario())


def test_a_planner_without_end_is_stopped() -> None:
    async def scenario() -> None:
        rounds, planner = begun(steps=lambda rounds: [giving(rounds)] * (MOST_ROUNDS + 5))
        with pytest.raises(GatewayError, match="steps"):
            await read(rounds)
        assert len(rounds.calls) == MOST_ROUNDS

    asyncio.run(scenario())
