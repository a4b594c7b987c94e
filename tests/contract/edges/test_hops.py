"""What the loop does for one piece of an answer that comes alone: it reads it, and the client has it. No task
waits for another turn of the loop.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from support.live import HELLO, LiveGateway
from support.turns import CountingLoop
from upstream import Gated, ScriptedUpstream, Sse
from upstream.kimi import chat_events

BEFORE, COUNTED = 3, 20  # pieces of content
AFTER = 4  # further events: the finish reason, usage, and the end
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100},
    "/v1/responses": {"input": "Hello"},
}


@pytest.mark.parametrize("path", ASKED)
def test_a_piece_is_handed_on_in_the_turn_that_reads_it(
    path: str, up: ScriptedUpstream, tmp_path: Path
) -> None:
    pieces = [f"<{number:03}>" for number in range(BEFORE + COUNTED)]
    gate, loop = Gated(Sse(chat_events("".join(pieces), pieces=len(pieces)))), CountingLoop()
    up.plan(gate)
    gate.let(2)  # the role and the first piece
    with LiveGateway(tmp_path, up.url, new_loop=lambda: loop) as gateway:
        asked = {"model": "kimi-k3", "stream": True, **ASKED[path]}
        with gateway.client(gateway.key()) as client, client.stream("POST", path, json=asked) as answer:
            lines, switches = answer.iter_lines(), []
            for piece in pieces:
                assert any(piece in line for line in lines)
                switches.append(loop.switches)
                gate.let()
            gate.let(AFTER)
            assert any(line for line in lines)
    assert set(switches[BEFORE:]) == {switches[BEFORE]}
    assert switches[0]  # it counts


CALLS = {"/v1/chat/completions": 42, "/v1/messages": 43, "/v1/responses": 50}  # of our functions, for a piece


@pytest.mark.parametrize("path", ASKED)
def test_a_piece_takes_few_calls(path: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    """Each call costs more than what most of them do. A coroutine or generator that goes on is one too."""
    pieces = [f"<{number:03}>" for number in range(BEFORE + COUNTED)]
    gate, called = Gated(Sse(chat_events("".join(pieces), pieces=len(pieces)))), Counter[str]()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and "kimi_gateway" in frame.f_code.co_filename:
            called[frame.f_code.co_name] += 1

    async def watch(counter: Callable[[FrameType, str, object], None] | None) -> None:
        sys.setprofile(counter)

    up.plan(gate)
    gate.let(2)
    with LiveGateway(tmp_path, up.url) as gateway:
        asked = {"model": "kimi-k3", "stream": True, **ASKED[path]}
        with gateway.client(gateway.key()) as client, client.stream("POST", path, json=asked) as answer:
            lines = answer.iter_lines()
            for number, piece in enumerate(pieces):
                assert any(piece in line for line in lines)
                if number == BEFORE:
                    gateway.do(watch(count))
                elif number == len(pieces) - 2:
                    gateway.do(watch(None))
                gate.let()
            gate.let(AFTER)
            assert any(line for line in lines)
    counted = sum(called.values()) / (len(pieces) - 2 - BEFORE)
    assert 1 < counted <= CALLS[path], called
    assert not called["_serve"]
    assert not called["chunks"]
