"""Messages on a socket: events as they come, pings in silence, a client that leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.exchange import CHARGED, NOT_CHARGED, UNTOUCHED, ledger
from contract.fault_table import WHOLE
from live import HELLO, LiveGateway
from unit.messages_stream import Folded
from upstream import (
    Delay,
    ErrorEvent,
    Gated,
    HtmlError,
    Kimi,
    ScriptedUpstream,
    Silence,
    Stall,
    Status,
    error,
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


def test_silence_is_filled_with_pings_behind_the_beginning(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.plan(Delay(0.5, Kimi()))
    with (
        LiveGateway(tmp_path, up.url, ping_interval=0.05) as gateway,
        events(gateway, gateway.key()) as coming,
    ):
        seen = list(coming)
    assert [event["type"] for event in seen[:3]] == ["message_start", "ping", "ping"]
    result = Folded()
    for event in seen:
        result.take(event)
    assert result.ended


LATE = {"an error's status": HtmlError(), "a refusal": Status(400, error("content_filter", "high risk")),
        "an error in the stream": ErrorEvent(1)}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_what_fails_after_a_ping_is_an_error_event(up: ScriptedUpstream, tmp_path: Path, name: str) -> None:
    up.always(Delay(0.3, LATE[name]))
    with LiveGateway(tmp_path, up.url, ping_interval=0.05, first_byte_timeout=5) as gateway:
        key, result = gateway.key(100), Folded()
        with events(gateway, key) as coming:
            for event in coming:
                result.take(event)
        assert result.error is not None
        assert result.error["type"] == ("invalid_request_error" if name == "a refusal" else "api_error")
        gateway.nothing_left(key)
        assert ledger(gateway, key) == NOT_CHARGED


def test_a_client_that_leaves_pays_for_content_and_not_for_pings(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url, ping_interval=0.05) as gateway:
        for step, price in ((Stall(2, WHOLE), CHARGED), (Silence(), UNTOUCHED)):
            up.plan(step)
            key = gateway.key(100)
            with events(gateway, key) as coming:
                wanted = "content_block_delta" if price is CHARGED else "ping"
                assert wanted in (event["type"] for event in coming)
            up.until(lambda: up.chats[-1].closed_early.is_set(), 1.0)
            gateway.nothing_left(key)
            assert ledger(gateway, key) == price


def test_a_stop_sequence_leaves_the_upstream_at_once(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.plan(Stall(4, Kimi(text="one END two", reasoning="", pieces=3)))
    with LiveGateway(tmp_path, up.url) as gateway:
        key = gateway.key(100)
        with events(gateway, key, stop_sequences=["END"]) as coming:
            ends = [event for event in coming if event["type"] == "message_delta"]
        assert ends[0]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
        up.until(lambda: up.chats[-1].closed_early.is_set(), 1.0)
        gateway.nothing_left(key)
        assert ledger(gateway, key) == CHARGED
