"""What one client can cost before it has shown a key: bodies, heads, answers and connections, on sockets."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.edge import body
from kimi_gateway.edge.home import protocol
from kimi_gateway.endpoints.token_check import CHECKS
from support.error_shape import anthropic_error, openai_error
from support.live import HELLO, LiveGateway
from support.wire import (
    CLOSE,
    PING,
    OverAsgi,
    check,
    connect,
    connections,
    head,
    ping,
    post,
    rest_of,
    statuses,
    talk,
)
from upstream import ScriptedUpstream

CHAT = json.dumps({"model": "kimi-k3", "messages": HELLO}).encode()
EDGES = pytest.mark.parametrize("edge", [LiveGateway, OverAsgi], ids=["home", "ASGI"])


@pytest.fixture
def gateway(up: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path, up.url) as gateway:
        yield gateway


@EDGES
@pytest.mark.parametrize("length", [8 * 1024 + 1, 100 * 2**20, 10**40])
def test_an_open_route_refuses_more_than_8_kib_before_any_of_it_is_sent(
    edge: type[LiveGateway], tmp_path: Path, length: int
) -> None:
    with edge(tmp_path) as gateway, connect(gateway) as client:
        client.sendall(check(length=length))
        answer = client.recv(65536)
    if length < 10**19 or edge is LiveGateway:
        assert statuses(answer)[0] in ((413,) if length < 10**19 else (413, 400))


@EDGES
def test_an_open_route_reads_no_more_than_8_kib_in_chunks(edge: type[LiveGateway], tmp_path: Path) -> None:
    lines = ("host: x", "content-type: application/json", "transfer-encoding: chunked")
    with edge(tmp_path) as gateway, connect(gateway) as client:
        client.sendall(head("/token/check", *lines) + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 3)
        assert statuses(client.recv(65536)) == [413]


def test_who_asks_too_often_is_refused_before_the_body_is_sent(tmp_path: Path) -> None:
    with LiveGateway(tmp_path) as gateway:
        assert gateway.app.running is not None
        askers = gateway.app.running.endpoints.token_check()._askers
        askers.spend("127.0.0.1", gateway.clock(), 2 * CHECKS)
        with connect(gateway) as client:
            client.sendall(check())
            assert statuses(client.recv(65536)) == [429]


@EDGES
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=json"]
)
def test_an_open_post_must_be_called_json(edge: type[LiveGateway], tmp_path: Path, kind: str) -> None:
    with edge(tmp_path) as gateway, gateway.client() as client:
        headers = {"content-type": kind} if kind else {}
        answer = client.post("/token/check", content=b'{"token": "x"}', headers=headers)
        assert answer.status_code == 415
        openai_error(answer.json())
        good = {"content-type": "application/JSON; charset=utf-8"}
        assert client.post("/token/check", content=b'{"token": "sk-kg-x"}', headers=good).json() == {
            "live": False
        }


@EDGES
@pytest.mark.parametrize("path", ["/token/check", "/api/token/check", "/token/check/"])
def test_a_page_of_another_origin_may_not_check_tokens(
    edge: type[LiveGateway], tmp_path: Path, path: str
) -> None:
    with edge(tmp_path) as gateway, gateway.client(headers={"origin": "https://evil.test"}) as client:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        for answer in (client.options(path, headers=asked), client.post(path, json={"token": "sk-kg-x"})):
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert client.options(path, headers=asked).status_code == 403
        assert client.options("/v1/models", headers=asked).headers["access-control-allow-origin"] == "*"


@EDGES
@pytest.mark.parametrize("sent", [b"", b'{"model"'], ids=["nothing", "too little"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_body_that_does_not_come_is_408_and_the_connection_closed(
    edge: type[LiveGateway], tmp_path: Path, sent: bytes, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "FIRST_BYTE", 0.1)
    monkeypatch.setattr(body, "WINDOW", 0.1)
    with edge(tmp_path) as gateway, connect(gateway) as client:
        key = f"x-api-key: {gateway.key()}"
        client.sendall(head(path, "host: x", key, "content-length: 100") + sent)
        top, _, answer = rest_of(client).partition(b"\r\n\r\n")
        assert statuses(top) == [408]
        assert b"connection: close" in top.lower()
        (anthropic_error if "messages" in path else openai_error)(json.loads(answer))


def test_a_body_that_is_slow_but_not_too_slow_is_read(
    gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LEAST_RATE", 1)
    head, _, whole = post(gateway.key(), CLOSE).partition(b"\r\n\r\n")
    with connect(gateway) as client:
        client.sendall(head + b"\r\n\r\n")
        for at in range(0, len(whole), 20):
            client.sendall(whole[at : at + 20])
            gateway.pass_time(0.6 * body.WINDOW)
        assert statuses(rest_of(client)) == [200]


@pytest.mark.parametrize("sent", [b"x: " + b"y" * 60_000, b"x: y\r\n" * 10_000], ids=["one", "many"])
def test_trailers_count_as_head_and_are_dropped(gateway: LiveGateway, sent: bytes) -> None:
    key = gateway.key()
    begun = post(key, "transfer-encoding: chunked", body=b"%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT))
    assert statuses(talk(gateway.port, begun, *[sent] * 100)) == [400]
    ended = post(key, "transfer-encoding: chunked", CLOSE, body=b"%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT))
    assert statuses(talk(gateway.port, ended + b"x-api-key: other\r\nhost: a b\r\n\r\n")) == [200]


def test_what_stands_beside_the_sizes_of_chunks_counts_as_head(gateway: LiveGateway) -> None:
    begun = post(gateway.key(), "transfer-encoding: chunked", body=b"1;")
    assert statuses(talk(gateway.port, begun, *[b"a" * 60_000] * 100)) == [400]


def test_a_head_of_many_fields_is_refused(gateway: LiveGateway) -> None:
    assert statuses(talk(gateway.port, b"GET /ping HTTP/1.1\r\nhost: x\r\n", b"a:\r\n" * 10_000)) == [400]


def test_a_head_of_many_bytes_is_refused(gateway: LiveGateway) -> None:
    most = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: " + b"y" * 65_000
    assert statuses(talk(gateway.port, most + b"\r\n\r\n")) == [200]
    assert statuses(talk(gateway.port, most + b"y" * 8_000 + b"\r\n\r\n")) == [400]


def test_a_head_in_one_read_with_a_large_body_is_served(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    large = json.dumps({"model": "kimi-k3", "messages": HELLO, "metadata": {"x": "y" * 400_000}}).encode()
    key = gateway.key()
    lines = ("host: x", f"x-api-key: {key}", f"content-length: {len(large)}", "x: " + "z" * 60_000)
    one = head("/v1/chat/completions", *lines) + large
    last = post(key, CLOSE)
    assert statuses(talk(gateway.port, one + one + one + last)) == [200] * 4
    assert len(up.chats) == 4


def test_tiny_requests_sent_at_once_are_not_all_parsed_at_once(
    gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0

    class Seen(protocol.Exchange):
        def __init__(self, connection: protocol.Protocol, *rest: Any, **more: Any) -> None:
            nonlocal most
            super().__init__(connection, *rest, **more)
            most = max(most, len(connection._exchanges) + 1)

    monkeypatch.setattr(protocol, "Exchange", Seen)
    last = head("/ping", "host: x", CLOSE, method="GET")
    assert statuses(talk(gateway.port, PING * 2000 + last)) == [200] * 2001
    assert most == 2


def test_answers_that_nobody_reads_do_not_pile_up(gateway: LiveGateway) -> None:
    page = head("/openapi.json", "host: x", method="GET")
    with gateway.client() as whole:
        answer = len(whole.get("/openapi.json").content)
    gateway.until(lambda: not connections(gateway))
    with connect(gateway) as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(page * 100)
        gateway.until(lambda: connections(gateway) and connections(gateway)[0].write_paused)
        (stuck,) = connections(gateway)
        gateway.nothing_left()
        assert stuck._transport.get_write_buffer_size() < answer + 64 * 1024
        assert len(stuck._exchanges) <= 2
        served = stuck.state.total_requests
        assert ping(gateway)
        gateway.until(lambda: stuck.state.total_requests > served)
        assert stuck.state.total_requests == served + 1
        client.setblocking(True)
        client.settimeout(30)
        read = b""
        while read.count(b"HTTP/1.1 200") <= served:  # whoever reads again is served again
            read += client.recv(65536)


def test_who_does_not_read_the_last_answer_is_cut_off(
    gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LOOK", 0.05)
    page = head("/docs/swagger-ui-bundle.js", "host: x", CLOSE, method="GET")
    with connect(gateway) as kept, connect(gateway) as closed:
        gateway.until(lambda: len(connections(gateway)) == 2)
        for each in connections(gateway):  # little is out of sight, in the system's buffers
            each._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for client, sent in ((kept, page.replace(b"close", b"keep-alive")), (closed, page)):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(sent)
        gateway.until(lambda: not connections(gateway))


def test_a_refused_body_is_not_read_to_its_end(gateway: LiveGateway) -> None:
    with connect(gateway) as client:
        client.sendall(post("sk-wrong", "content-length: 90000000", body=b""))
        assert statuses(client.recv(65536)) == [401]
        sent = 0
        with suppress(OSError):
            while sent < 90_000_000:
                sent += client.send(b" " * 65536)
        assert sent < 20_000_000  # what the sockets hold, and a megabyte
    gateway.until(lambda: not connections(gateway))


def test_a_small_refused_body_leaves_the_connection_open(gateway: LiveGateway) -> None:
    with connect(gateway) as client:
        client.sendall(post("sk-wrong", "content-length: 100", body=b""))
        assert statuses(client.recv(65536)) == [401]
        client.sendall(b" " * 100 + head("/ping", "host: x", CLOSE, method="GET"))
        assert statuses(rest_of(client)) == [200]


@pytest.mark.parametrize("version", ["2.0", "0.9", "1.2"])
def test_another_version_of_http_is_400(gateway: LiveGateway, version: str) -> None:
    answer = talk(gateway.port, head("/ping", "host: x", method="GET", version=version))
    assert statuses(answer) == [400]


@EDGES
def test_http_1_1_without_a_host_is_400_in_the_dialect_of_the_path(
    edge: type[LiveGateway], tmp_path: Path
) -> None:
    with edge(tmp_path) as gateway:
        top, _, answer = talk(gateway.port, head("/v1/messages", CLOSE, method="GET")).partition(b"\r\n\r\n")
        assert statuses(top) == [400]
        anthropic_error(json.loads(answer))
        assert statuses(talk(gateway.port, head("/ping", method="GET", version="1.0"))) == [200]


@EDGES
@pytest.mark.parametrize("path", ["/v1/responses", "/api/v1/responses"])
def test_a_websocket_is_told_to_use_http(edge: type[LiveGateway], tmp_path: Path, path: str) -> None:
    lines = ["host: x", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    with edge(tmp_path) as gateway:
        with connect(gateway) as client:
            client.sendall(head(path, *lines, method="GET"))
            told = b""
            while not told.endswith(b"}"):
                told += client.recv(65536)
        top, _, answer = told.partition(b"\r\n\r\n")
        assert statuses(top) == [426]
        assert "HTTP" in openai_error(json.loads(answer))["message"]
        assert statuses(talk(gateway.port, head(path, "host: x", CLOSE, method="GET"))) == [405]


@EDGES
def test_a_packed_body_is_unpacked_under_the_limit(
    edge: type[LiveGateway], up: ScriptedUpstream, tmp_path: Path
) -> None:
    with edge(tmp_path, up.url, body_limit=300_000) as gateway:
        key = gateway.key()

        def ask(content: bytes, coding: str, path: str = "/v1/chat/completions") -> Any:
            headers = {"content-encoding": coding, "content-type": "application/json"}
            with gateway.client(key) as client:
                return client.post(path, content=content, headers=headers)

        for coding in ("gzip", "GZIP", "x-gzip"):
            assert ask(gzip.compress(CHAT), coding).status_code == 200
        assert ask(CHAT, "identity").status_code == 200
        long = CHAT[:-1] + b" " * 280_000 + b"}"
        assert ask(gzip.compress(long), "gzip").status_code == 200
        too_large = ask(gzip.compress(b" " * 50_000_000), "gzip")
        assert (too_large.status_code, too_large.headers["x-should-retry"]) == (413, "false")
        for broken in (b"", CHAT, gzip.compress(CHAT)[:-9], gzip.compress(CHAT) + b"x"):
            assert ask(broken, "gzip").status_code == 400
        for coding in ("br", "gzip, gzip", "deflate", "x" * 5000):
            assert ask(CHAT, coding).status_code == 415
            anthropic_error(ask(CHAT, coding, "/v1/messages").json())
        assert len(up.chats) == 5
        with gateway.client("sk-wrong") as client:  # the key comes first
            answer = client.post("/v1/responses", content=b"x", headers={"content-encoding": "br"})
            assert answer.status_code == 401


def test_the_pages_are_loaded_apart_from_the_loop_and_made_once(gateway: LiveGateway) -> None:
    loaded, made, load, make = [], [], gateway.app._loaded, gateway.app._made

    def loading() -> Any:
        loaded.append(threading.current_thread().name)
        return load()

    async def making(request: Any) -> Any:
        made.append(request.path)
        return await make(request)

    gateway.app._loaded, gateway.app._made = loading, making  # type: ignore[method-assign]
    with gateway.client() as client:
        for path in ("/openapi.json", "/docs", "/docs/swagger-ui.css"):
            answers = [client.get(path, headers={"x-other": str(at)}) for at in range(3)]
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            assert client.head(path).content == b""
            assert made.count(path) == 2  # GET and HEAD
    assert len(loaded) == 1
    assert loaded[0] != "gateway"
