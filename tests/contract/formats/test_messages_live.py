"""Messages on a socket: events as they come, pings in silence, a client that leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.exchange import CHARGED, ledger
from support.fault_table import WHOLE
from support.live import HELLO, LiveGateway
from upstream import (
    Gated,
    Kimi,
    ScriptedUpstream,
    Stall,
)

ASK = {"model": "kimi-k3", "max_tokens": 100, "messages": HELLO, "stream": True}


@contextmanager
def events(gateway: LiveGateway, key: str, **body: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of one answer as they come."""
    with (
        gateway.client(key) as client,
        client.stream("POST", "/anthropic/v1/messages?beta=true", json=ASK | body) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-accel-buffering"] == "no"
        yield (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))


def test_each_event_arrives_before_the_next_chunk_is_sent(up: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    gate.let(2)
    with LiveGateway(tmp_path, up.url) as gateway, events(gateway, gateway.key()) as coming:
        kinds = [next(coming)["type"] for _ in range(3)]
        assert kinds == ["message_start", "content_block_start", "content_block_delta"]
        assert gate.sent <= 2
        gate.let()
        assert next(coming)["type"] == "content_block_delta"
        gate.let(100)
        assert [event["type"] for event in coming][-3:] == [
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]


def test_a_stop_sequence_leaves_the_upstream_at_once(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.plan(Stall(4, Kimi(text="one END two", reasoning="", pieces=3)))
    with LiveGateway(tmp_path, up.url) as gateway:
        key = gateway.key(100)
        with events(gateway, key, stop_sequences=["END"]) as coming:
            ends = [event for event in coming if event["type"] == "message_delta"]
        assert ends[0]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
        up.until(lambda: up.chats[-1].closed_early.is_set())
        gateway.nothing_left(key)
        assert ledger(gateway, key) == CHARGED
