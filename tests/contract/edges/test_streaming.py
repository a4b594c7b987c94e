"""When things reach the client: chunks as they come, the head not before content, the end not before the
ledger knows of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.store import StoreDown
from support.exchange import CHARGED, NOT_CHARGED, UNTOUCHED, Seen, ask, ledger, streaming
from support.fault_table import EVENTS, TEXT, WHOLE
from support.live import LiveGateway
from upstream import ErrorEvent, Flood, Gated, Malformed, Pieces, ScriptedUpstream, Sse, Stall, error, frame
from upstream.kimi import chat_events

MODES = pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
ALL = 100  # events; more than any answer here has
Start = Callable[..., AbstractContextManager[LiveGateway]]


@pytest.fixture
def start(up: ScriptedUpstream, tmp_path: Path) -> Start:
    return lambda **settings: LiveGateway(tmp_path, up.url, **settings)


def content_of(line: str) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"])


def test_each_chunk_arrives_before_the_next_is_sent(up: ScriptedUpstream, start: Start) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    gate.let(2)  # the role and the first of the content
    with start() as gateway, streaming(gateway, gateway.key()) as (answer, lines):
        assert answer.status_code == 200
        next(lines)
        arrived = content_of(next(lines))
        for count in (3, 4, 5):
            assert gate.sent <= count - 1
            gate.let()
            arrived += content_of(next(lines))
        assert arrived == TEXT
        gate.let(ALL)
        assert [json.loads(line[6:])["choices"][0]["finish_reason"] for line in [next(lines)]] == ["stop"]
        assert list(lines) == ["data: [DONE]"]


def test_the_head_waits_for_the_first_content(up: ScriptedUpstream, start: Start) -> None:
    """A role alone says nothing: what fails after it is still told by a status."""
    gate = Gated(ErrorEvent(1, error("content_filter", "high risk"), WHOLE))
    up.plan(gate)
    with start() as gateway, ThreadPoolExecutor() as pool:
        key = gateway.key()
        asking = pool.submit(gateway.chat, key, stream=True)
        gate.let()
        up.until(lambda: gate.sent == 1)
        gateway.rest()
        with gateway.client() as other:
            assert other.get("/ping").status_code == 200  # by then an answer to the first had come
        assert not asking.done()
        gate.let(ALL)
        answer = asking.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
        assert ledger(gateway, key) == NOT_CHARGED


def padded(size: int) -> dict[str, Any]:
    """A chunk without content, but long."""
    return {**EVENTS[0], "padding": "." * size}


def test_what_is_held_back_is_let_go_at_64_kib(up: ScriptedUpstream, start: Start) -> None:
    up.plan(Stall(2, Sse([padded(60_000), padded(6_000)])))
    with start() as gateway, streaming(gateway, gateway.key()) as (answer, lines):
        assert answer.status_code == 200
        sizes = [len(json.loads(next(lines)[6:])["padding"]) for _ in range(2)]
        assert sizes == [60_000, 6_000]


def test_less_than_64_kib_is_held_back(up: ScriptedUpstream, start: Start) -> None:
    events = [padded(30_000), padded(30_000), error("invalid_request_error", "no")]
    up.plan(Sse(events, gap=0.05, done=False))
    with start() as gateway:
        assert ask(gateway, True).seen.status == 400


def test_silence_is_filled_with_comments(up: ScriptedUpstream, start: Start) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    with start(ping_interval=0.05) as gateway, streaming(gateway, key := gateway.key()) as (answer, lines):
        assert answer.status_code == 200
        assert [next(lines) for _ in range(3)] == [": ping"] * 3
        gate.let(2)
        said = (line for line in lines if line != ": ping")  # a ping may be on its way
        assert [content_of(next(said)) for _ in range(2)] == ["", TEXT[:8]]
        assert next(lines) == ": ping"
        gate.let(ALL)
        rest = [line for line in lines if line != ": ping"]
        assert rest[-1] == "data: [DONE]"
        assert "".join(map(content_of, rest[:-1])) == TEXT[8:]
        assert ledger(gateway, key) == CHARGED


def test_after_a_comment_a_failure_is_an_event(up: ScriptedUpstream, start: Start) -> None:
    gate = Gated(ErrorEvent(1, error("invalid_request_error", "no such tool"), WHOLE))
    up.plan(gate)
    with start(ping_interval=0.05) as gateway, streaming(gateway, key := gateway.key()) as (answer, lines):
        assert (answer.status_code, next(lines)) == (200, ": ping")
        gate.let(ALL)
        (told,) = [line for line in lines if line != ": ping"]
        assert json.loads(told[6:])["error"]["code"] == "invalid_request"
        assert ledger(gateway, key) == NOT_CHARGED


def test_after_a_comment_another_attempt_is_still_unseen(up: ScriptedUpstream, start: Start) -> None:
    gate = Gated(Malformed(1, WHOLE))
    up.plan(gate, WHOLE)
    with start(ping_interval=0.05) as gateway, streaming(gateway, key := gateway.key()) as (_, lines):
        assert next(lines) == ": ping"
        gate.let(ALL)
        data = [line for line in lines if line != ": ping"]
        assert "".join(map(content_of, data[:-1])) == TEXT
        assert sum('"role"' in line for line in data) == 1
        assert ledger(gateway, key) == CHARGED


class HeldStore:
    """A store whose settlements wait until they are let go, or fail as often as it is told."""

    def __init__(self, store: Any, fail: int = 0) -> None:
        self.store, self.fail = store, fail
        self.settling, self.let_go = asyncio.Event(), asyncio.Event()

    async def settle(self, *about: Any) -> bool:
        self.settling.set()
        if self.fail:
            self.fail -= 1
            raise StoreDown("not now")
        await self.let_go.wait()
        settled: bool = await self.store.settle(*about)
        return settled


def put_ledger(gateway: LiveGateway, store: HeldStore) -> None:
    assert gateway.app.running is not None
    gateway.app.running.gateway.ledger = Ledger(store, time.time, 60)  # type: ignore[arg-type]


@MODES
def test_the_end_of_an_answer_waits_for_its_settlement(
    up: ScriptedUpstream, start: Start, stream: bool
) -> None:
    up.always(WHOLE)
    with start() as gateway, ThreadPoolExecutor() as pool:
        store, key, pieces = HeldStore(gateway.store), gateway.key(), list[bytes]()
        put_ledger(gateway, store)

        def read() -> None:
            body = {"model": "kimi-k3", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
            with gateway.client(key) as client:
                with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    pieces.extend(answer.iter_raw())
                assert ledger(gateway, key) == CHARGED  # whoever saw the end sees the ledger agree

        reading = pool.submit(read)
        gateway.until(store.settling.is_set)
        gateway.rest()
        with gateway.client() as other:
            assert other.get("/ping").status_code == 200  # by then the pieces that were sent had come
        assert b'"stop"' not in b"".join(pieces)
        assert b"[DONE]" not in b"".join(pieces)
        assert ledger(gateway, key) == UNTOUCHED
        gateway.call(store.let_go.set)
        reading.result()
        assert b'"stop"' in b"".join(pieces)


@MODES
def test_an_answer_is_completed_even_if_its_settlement_fails_and_is_settled_later(
    up: ScriptedUpstream, start: Start, stream: bool
) -> None:
    up.always(WHOLE)
    with start() as gateway:
        store = HeldStore(gateway.store, fail=1)
        store.let_go.set()
        put_ledger(gateway, store)
        key = gateway.key()
        answer = gateway.chat(key, stream=stream)
        seen = Seen(answer.status_code, answer.headers, answer.text)
        assert (seen.status, seen.done, seen.finishes) == (200, True, ["stop"])
        gateway.until(lambda: ledger(gateway, key) == CHARGED)


@MODES
@pytest.mark.parametrize("begun", [False, True], ids=["before content", "after content"])
def test_a_request_has_a_longest_time(up: ScriptedUpstream, start: Start, begun: bool, stream: bool) -> None:
    up.plan(Stall(3 if begun else 1, WHOLE))
    with start(max_request=1.5) as gateway:  # of which most is for a slow machine to begin
        asked = ask(gateway, stream)
        assert asked.seen.status == (200 if begun and stream else 503)
        assert asked.seen.error is not None
        assert "1.5 seconds" in asked.seen.error["message"]
        assert (asked.seen.finishes, asked.ledger) == ([], NOT_CHARGED)
        assert asked.requests(up)[0].closed_early.wait(30)


def test_the_longest_time_holds_for_an_upstream_that_never_pauses(up: ScriptedUpstream, start: Start) -> None:
    up.plan(Flood(2**40))
    with start(max_request=0.5) as gateway:
        asked = ask(gateway, False)
        assert (asked.seen.status, asked.ledger) == (503, NOT_CHARGED)
        assert asked.requests(up)[0].closed_early.wait(30)


def test_the_longest_time_holds_while_pieces_come(up: ScriptedUpstream, start: Start) -> None:
    up.plan(Pieces(400, Sse(chat_events("x" * 1000, pieces=500)), gap=0.01))
    with start(max_request=0.5) as gateway:
        asked = ask(gateway, True)
        assert asked.seen.error is not None
        assert "0.5 seconds" in asked.seen.error["message"]
        assert (asked.seen.status, asked.seen.done, asked.ledger) == (200, False, NOT_CHARGED)
        assert asked.requests(up)[0].closed_early.wait(1.0)


@MODES
def test_one_connection_serves_one_request_after_the_other(
    up: ScriptedUpstream, start: Start, stream: bool
) -> None:
    with start() as gateway:
        for _ in range(5):
            asked = ask(gateway, stream)
            gateway.nothing_left(asked.key)
    assert (len(up.chats), up.accepted) == (5, 1)


def test_frames_are_never_compressed_or_cached(up: ScriptedUpstream, start: Start) -> None:
    with start() as gateway:
        headers = ask(gateway, True).seen.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-encoding" not in headers


def test_bytes_of_a_frame_are_the_vendors_own_words(up: ScriptedUpstream, start: Start) -> None:
    """Unknown members survive, at every level; text is not escaped anew."""
    event = {
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "é\u2028👋", "mood": 1}, "seed": None}
        ],
        "x": [{}],
    }
    up.plan(Sse([frame(event), EVENTS[-1]]))
    with start() as gateway:
        first = ask(gateway, True).seen.bodies[0]
    assert event.items() <= first.items()
