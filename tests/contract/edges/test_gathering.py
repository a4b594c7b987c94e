"""An answer that its client gets in one piece: its parts are read together, and none of them is lost."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from contract.edges.test_disconnect import is_left, send
from kimi_gateway.net.mailbox import GATHER_FOR
from kimi_gateway.pivot import token_estimate
from support.exchange import ask
from support.formats import CHAT, EACH, MESSAGES, Format
from support.live import LiveGateway
from upstream import Gated, ScriptedUpstream, Sse
from upstream.kimi import chat_events

PIECES = [f"<{number:03}>" for number in range(60)]
EVENTS = chat_events("".join(PIECES), pieces=len(PIECES))


def reads(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, stream: bool
) -> tuple[int, float]:
    """How often the gateway's task takes parts of an answer whose pieces come alone, and the seconds."""
    called, gate = Counter[str](), Gated(Sse(EVENTS))

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname == "Decoder.feed":
            called["feed"] += 1

    async def watch(on: bool) -> None:
        sys.setprofile(count if on else None)

    upstream.plan(gate)
    gateway.do(watch(True))
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, gateway, stream, format=format)
        for sent in range(1, len(PIECES) + 2):
            gate.let()
            upstream.until(lambda sent=sent: gate.sent >= sent)  # type: ignore[misc]
            gateway.rest()
        gate.let(10)
        seen = asking.result().seen
    took = time.monotonic() - begun
    gateway.do(watch(False))
    assert seen.content == "".join(PIECES)
    return called["feed"], took


@EACH
def test_parts_of_an_answer_in_one_piece_are_read_together(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format
) -> None:
    often, took = reads(gateway, upstream, format, stream=False)
    assert often <= 5 + took / GATHER_FOR
    if format is CHAT:
        assert reads(gateway, upstream, format, stream=True)[0] > len(PIECES)  # it counts


def test_a_client_that_leaves_pays_for_what_had_gathered(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    for format in (CHAT, MESSAGES):
        gate, key = Gated(Sse(EVENTS)), gateway.key()
        upstream.plan(gate)
        with send(gateway, key, stream=False, format=format):
            gate.let(1 + len(PIECES))
            upstream.until(lambda gate=gate: gate.sent == 1 + len(PIECES))  # type: ignore[misc]
            gateway.rest()
        is_left(gateway, upstream, key)
        assert gateway.usage(key)[0].output >= int(token_estimate.of_text("".join(PIECES)))
        upstream.requests.clear()


def test_an_answer_without_its_last_event_is_not_waited_for_longer(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    gate = Gated(Sse(EVENTS))
    gate.let(len(EVENTS))  # but not the end
    upstream.plan(gate)
    assert ask(gateway, stream=False).seen.content == "".join(PIECES)
