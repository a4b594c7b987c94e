"""Mixed traffic of a soak: healthy callers, callers that leave, an upstream that fails in several ways."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from load import CONTENT, QUESTION, Answer, Connection, chat, connect, request

HEALTHY, FAULTY = "kimi-k3", "kimi-k2.6"  # models of their own, since a token is remembered by its model too


@dataclass(frozen=True, slots=True)
class Flow:
    """Callers of one kind. `expected` are the outcomes that are no failure of the gateway."""

    name: str
    callers: int
    chunks: int
    gap_ms: float
    stream: bool
    think: float  # seconds between two requests, at most
    leaves: bool = False
    fault: str = ""
    once: bool = False
    path: str = "/v1/chat/completions"

    @property
    def healthy(self) -> bool:
        return not self.fault or self.once


FLOWS = (
    Flow("short question", 6, 4, 0, False, 0.1),
    Flow("stream", 4, 100, 0, True, 0.3),
    Flow("paced stream", 12, 100, 10, True, 0.2),
    Flow("Messages", 3, 100, 0, True, 0.3, path="/v1/messages"),
    Flow("Responses", 3, 100, 0, True, 0.3, path="/v1/responses"),
    Flow("leaves in the middle", 6, 200, 5, True, 0.1, leaves=True),
    Flow("500 once", 1, 20, 0, True, 0.2, fault="500", once=True),
    Flow("500", 1, 20, 0, True, 0.5, fault="500"),
    Flow("429", 1, 20, 0, True, 0.5, fault="429"),
    Flow("cut", 1, 20, 1, True, 0.2, fault="cut"),
    Flow("stall", 2, 20, 1, True, 0.2, fault="stall"),
    Flow("malformed", 1, 20, 1, True, 0.2, fault="malformed"),
)


@dataclass(slots=True)
class Tally:
    """`charged` are the answers that must have cost a credit; `outcomes` by (flow, outcome)."""

    charged: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(self, flow: Flow) -> dict[str, int]:
        return {outcome: count for (name, outcome), count in self.outcomes.items() if name == flow.name}

    @property
    def failed(self) -> int:
        """Requests of healthy flows without a whole answer."""
        return sum(
            count
            for flow in FLOWS
            if flow.healthy
            for outcome, count in self.of(flow).items()
            if outcome not in ("whole", "left")
        )


async def drive(port: int, key: str, seconds: float, seed: int) -> Tally:
    """Ends by itself: no caller begins anything after `seconds`, and every wait is bounded."""
    tally, end = Tally(), time.monotonic() + seconds
    callers = [(flow, number) for flow in FLOWS for number in range(flow.callers)]
    await asyncio.gather(
        *(_caller(flow, port, key, end, tally, f"{seed} {flow.name} {number}") for flow, number in callers)
    )
    return tally


async def _caller(flow: Flow, port: int, key: str, end: float, tally: Tally, seed: str) -> None:
    dice = random.Random(seed)  # noqa: S311
    connection: Connection | None = None
    while time.monotonic() < end:
        if connection is None or connection.closed:
            connection = await connect(port)
        leave_after = dice.randint(1, flow.chunks // 2) if flow.leaves else 0
        answer = await connection.ask(_message(flow, port, key), leave_after=leave_after)
        outcome = outcome_of(answer, flow)
        tally.outcomes[flow.name, outcome] += 1
        tally.charged += outcome in ("whole", "left")
        await asyncio.sleep(dice.uniform(0, flow.think))
    if connection is not None:
        connection.close()


def _message(flow: Flow, port: int, key: str) -> bytes:
    wish: dict[str, object] = {"chunks": flow.chunks, "gap_ms": flow.gap_ms, "fault": flow.fault}
    if flow.once:
        wish["once"] = uuid.uuid4().hex
    body = chat(wish, flow.stream, model=FAULTY if flow.fault else HEALTHY)
    return request(port, key, _BODIES.get(flow.path, body), flow.path)


# Other dialects cannot pass the wish on, so they get what the emulator gives unasked: 100 chunks, unpaced.
ASKED = {"role": "user", "content": QUESTION}
_BODIES: dict[str, dict[str, object]] = {
    "/v1/messages": {"model": HEALTHY, "max_tokens": 1000, "stream": True, "messages": [ASKED]},
    "/v1/responses": {"model": HEALTHY, "stream": True, "store": False, "input": [ASKED]},
}
_ENDS = {"/v1/messages": b"event: message_stop", "/v1/responses": b"event: response.completed"}


def outcome_of(answer: Answer, flow: Flow) -> str:
    if answer.fault:
        return answer.fault
    if answer.status != 200:
        return f"status {answer.status}"
    if flow.path in _ENDS:
        whole = answer.body.count(b" word") >= flow.chunks and _ENDS[flow.path] in answer.body
        return "whole" if whole else "incomplete"
    if b'"error":' in answer.body[-2000:]:
        return "error event"
    if flow.stream:
        whole = answer.body.count(CONTENT) >= flow.chunks and b"data: [DONE]" in answer.body[-64:]
    else:
        whole = answer.body.count(b" word") >= flow.chunks
    return "whole" if whole else "incomplete"
