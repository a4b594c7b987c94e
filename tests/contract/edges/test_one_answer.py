"""What one short question makes the loop do: calls of functions, turns, tasks, timers, and statements of the
store. Each step that is added here is paid by every request.
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from kimi_gateway.accounts.values import Limits
from support.live import HELLO, LiveGateway
from upstream import Gated, ScriptedUpstream, Sse, Status
from upstream.kimi import chat_events
from upstream.steps import DONE, frame

WARM, COUNTED = 25, 40  # requests
# Of one request with the step that reads the counts (a task and some turns), and with an answer in two
# reads: on a busy machine there is no other.
MOST = {"calls": 940, "turns": 6, "tasks": 3, "timers": 0, "statements": 11}


class Counted:
    """Counts what the gateway's thread calls, from one request to the next."""

    def __init__(self, gateway: LiveGateway) -> None:
        self._gateway = gateway
        self._counts = Counter[str]()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._counts["calls"] += 1
            self._counts[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            self._counts[argument.__qualname__] += 1

    def take(self) -> Counter[str]:
        """What was counted since the last time. The gateway has nothing to do meanwhile."""

        async def swap() -> Counter[str]:
            sys.setprofile(None)
            taken, self._counts = self._counts, Counter()
            sys.setprofile(self)
            return taken

        return self._gateway.do(swap())

    def seen(self, name: str) -> int:
        return self._counts[name]

    def end(self) -> None:
        async def end() -> None:
            sys.setprofile(None)

        self._gateway.do(end())


def seen(calls: Counter[str]) -> dict[str, int]:
    return {
        "calls": calls["calls"],
        "turns": calls["BaseEventLoop._run_once"],
        "tasks": calls["BaseEventLoop.create_task"] + calls["begin"],
        "timers": calls["BaseEventLoop.call_at"],
        "statements": calls["Cursor.execute"] + calls["Connection.execute"],
    }


def test_a_short_answer_takes_few_steps(up: ScriptedUpstream, tmp_path: Path) -> None:
    """The least of several requests: others also meet the server's own timers, or an answer in two reads."""
    events = b"".join([frame(event) for event in chat_events("one two three four", pieces=4)])
    up.always(Status(200, events + DONE, {"content-type": "text/event-stream"}))
    counted = []
    with LiveGateway(tmp_path, up.url) as gateway:
        limits = Limits(10_000, 10_000, 10_000)
        with gateway.client(gateway.key(limits=limits)) as client:
            counter = Counted(gateway)
            for number in range(WARM + COUNTED):
                counter.take()
                answer = client.post("/v1/chat/completions", json={"model": "kimi-k3", "messages": HELLO})
                assert answer.status_code == 200
                if number >= WARM:
                    counted.append(seen(counter.take()))
            counter.end()
    least = {what: min(each[what] for each in counted) for what in MOST}
    assert all(least[what] <= most for what, most in MOST.items()), least
    assert MOST["calls"] < least["calls"] * 1.2, "the bound is loose"


def test_the_task_that_answers_goes_on_at_the_end(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Pieces of an answer that is sent as a whole are collected where they are read."""
    pieces = [f"<{number:02}>" for number in range(20)]
    gate = Gated(Sse(chat_events("".join(pieces), pieces=len(pieces))))
    up.plan(gate)
    gate.let(2)  # the role and the first piece
    with LiveGateway(tmp_path, up.url) as gateway, ThreadPoolExecutor(1) as asking:
        counter = Counted(gateway)
        counter.take()
        with gateway.client(gateway.key()) as client:
            question = {"model": "kimi-k3", "messages": HELLO}
            asked = asking.submit(client.post, "/v1/chat/completions", json=question)
            for number in range(1, len(pieces)):
                gateway.until(lambda enough=number: counter.seen("JsonAnswer.add") >= enough)
                gate.let()
            gate.let(4)  # the finish reason, usage, and the end
            assert asked.result(30).json()["choices"][0]["message"]["content"] == "".join(pieces)
        counted = counter.take()
        counter.end()
    assert counted["JsonAnswer.add"] >= len(pieces)
    assert 1 <= counted["Mailbox.get"] <= 4
