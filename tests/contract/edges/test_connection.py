"""HTTP/1.1 as the home server speaks it: the legal is served in order, what is not ends the connection."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live import HELLO, LiveGateway, text_of
from support.wire import CLOSE, OverAsgi, connect, connections, post, rest_of, statuses, talk
from upstream import Gated, Kimi, ScriptedUpstream

CHAT = {"model": "kimi-k3", "messages": HELLO}


@pytest.fixture
def gateway(up: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path, up.url) as gateway:
        yield gateway


def test_requests_sent_at_once_are_answered_in_their_order(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    key, gate = gateway.key(), Gated(Kimi())
    up.plan(gate)
    ids = [f"x-request-id: number-{number}" for number in range(3)]
    ping = b"GET /ping HTTP/1.1\r\nhost: x\r\nx-request-id: number-3\r\n\r\n"
    sent = [post(key, ids[0], stream=True), post(key, ids[1]), ping, post(key, ids[2], CLOSE)]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(b"".join(sent))
        up.until(lambda: up.chats)
        assert len(up.chats) == 1  # the others wait
        gate.let(1000)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert statuses(answer) == [200] * 4
    assert re.findall(rb"x-request-id: (\S+)", answer) == [b"number-0", b"number-1", b"number-3", b"number-2"]
    assert gateway.account(key).credits == 97
    gateway.nothing_left(key)


def test_a_request_may_come_byte_by_byte_and_its_body_in_chunks(gateway: LiveGateway) -> None:
    key, raw = gateway.key(), json.dumps(CHAT).encode()
    plain = post(key, CLOSE)
    assert statuses(talk(gateway.port, *[bytes([byte]) for byte in plain])) == [200]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (raw[:9], raw[9:])) + b"0\r\n\r\n"
    chunked = post(key, "transfer-encoding: chunked", CLOSE, body=chunks)
    assert statuses(talk(gateway.port, *[bytes([byte]) for byte in chunked])) == [200]


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(gateway: LiveGateway) -> None:
    key, raw = gateway.key(), json.dumps(CHAT).encode()
    head = post(key, f"content-length: {len(raw)}", "expect: 100-continue", CLOSE, body=b"")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head)
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(raw)
        assert statuses(b"".join(iter(lambda: client.recv(65536), b""))) == [200]


def test_another_expectation_is_ignored_and_http_1_0_is_not_told_to_go_on(gateway: LiveGateway) -> None:
    """RFC 9110, section 10.1.1: 417 is optional, and an expectation in HTTP/1.0 must be ignored."""
    key, raw = gateway.key(), json.dumps(CHAT).encode()
    assert statuses(talk(gateway.port, post(key, "expect: banana", CLOSE))) == [200]
    old = post(key, f"content-length: {len(raw)}", "expect: 100-continue", body=b"", version="1.0")
    with connect(gateway) as client:
        client.sendall(old)
        gateway.until(lambda: any(each._wanted for open in connections(gateway) for each in open._exchanges))
        client.sendall(raw)
        answer = rest_of(client)
    assert b"100 Continue" not in answer
    assert statuses(answer) == [200]


def test_a_refused_client_that_asks_first_is_not_told_to_go_on_and_cannot_smuggle(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    hidden = post(gateway.key())
    head = post("sk-wrong", f"content-length: {len(hidden)}", "expect: 100-continue", body=b"")
    assert statuses(talk(gateway.port, head)) == [401]  # and closed, since nobody knows what would come next
    closing = post("sk-wrong", f"content-length: {len(hidden)}", "expect: 100-continue", CLOSE, body=hidden)
    assert statuses(talk(gateway.port, closing)) == [401]
    assert up.chats == []


def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_its_connection(gateway: LiveGateway) -> None:
    head, _, body = talk(gateway.port, post(gateway.key(), version="1.0", stream=True)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert text_of(body.decode()) == Kimi().text
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "rest",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["not HTTP", "two lengths"],
)
def test_what_is_broken_behind_a_good_request_is_refused_behind_its_answer(
    gateway: LiveGateway, up: ScriptedUpstream, rest: bytes
) -> None:
    up.plan(Kimi(gap=0.02))
    key = gateway.key()
    answer = talk(gateway.port, post(key, stream=True) + rest)
    assert statuses(answer) == [200, 400]
    assert answer.index(b"data: [DONE]") < answer.index(b"HTTP/1.1 400")
    assert gateway.account(key).credits == 99


@pytest.mark.parametrize("good_ones", [0, 1])
def test_a_body_with_broken_chunks_is_400_and_asks_nothing(
    gateway: LiveGateway, up: ScriptedUpstream, good_ones: int
) -> None:
    key = gateway.key()
    broken = post(key, "transfer-encoding: chunked", body=b'5\r\n{"mod\r\nzz\r\n')
    assert statuses(talk(gateway.port, post(key) * good_ones + broken)) == [200] * good_ones + [400]
    assert len(up.chats) == good_ones
    gateway.nothing_left(key)


def test_nothing_is_read_behind_a_request_that_closes(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    key = gateway.key()
    assert statuses(talk(gateway.port, post(key, CLOSE) + post(key))) == [200]
    assert len(up.chats) == 1


def test_an_upgrade_is_not_made_and_the_request_served(gateway: LiveGateway) -> None:
    lines = b"host: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n"
    answer = talk(gateway.port, b"GET /ping HTTP/1.1\r\n" + lines + b"not HTTP")
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


def test_a_connection_that_is_silent_or_stuck_in_a_head_is_closed(gateway: LiveGateway) -> None:
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as silent,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as stuck,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as idle,
    ):
        stuck.sendall(b"GET /ping HTTP/1.1\r\nx: ")
        idle.sendall(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
        for client in (silent, stuck, idle):
            rest = b"".join(iter(lambda one=client: one.recv(65536), b""))
            assert statuses(rest) == [200] * (client is idle)


def test_the_asgi_application_serves_streams_and_pages_and_hears_of_clients_that_leave(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with OverAsgi(tmp_path, up.url, body_limit=10_000) as gateway:
        key = gateway.key()
        assert gateway.chat(key).json()["choices"][0]["message"]["content"] == Kimi().text
        assert text_of(gateway.chat(key, stream=True).text) == Kimi().text
        assert gateway.chat(key, metadata={"x": "y" * 10_000}).status_code == 413
        with gateway.client() as client:
            assert client.get("/docs").headers["content-type"].startswith("text/html")
            assert "/v1/chat/completions" in client.get("/openapi.json").json()["paths"]
        gate = Gated(Kimi())
        up.plan(gate)
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(post(key, stream=True))
            up.until(lambda: len(up.chats) == 3)
        up.until(lambda: up.chats[-1].closed_early.is_set())
        gateway.nothing_left(key)
        assert gateway.account(key).credits == 98
