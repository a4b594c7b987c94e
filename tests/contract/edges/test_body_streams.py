"""`Request.stream()` and `Request.query` on every edge: a route of the test takes an upload in pieces."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.edge import body
from kimi_gateway.edge.home import protocol
from kimi_gateway.edge.router import Access, Route, Router
from kimi_gateway.errors import BodyTooLarge, InvalidRequest
from kimi_gateway.http import MOST_FIELDS, Query, Request, Response
from support import proxy_events
from support.live import LiveGateway
from support.wire import OverAsgi, connect, head, ping, rest_of, statuses

LIMIT = 32 * 2**20
BODY_LIMIT = 1024  # of what is read whole: an upload has its route's limit


class Taker:
    """An endpoint that takes each piece only while `going` is set."""

    def __init__(self) -> None:
        self.going = asyncio.Event()
        self.pieces: list[int] = []
        self.digest = hashlib.sha256()
        self.first, self.ended = threading.Event(), threading.Event()
        self.query: list[str] = []

    async def __call__(self, request: Request) -> Response:
        self.query = request.query.all("n")
        try:
            async with aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    self.pieces.append(len(piece))
                    self.digest.update(piece)
                    self.first.set()
                    await self.going.wait()
        finally:
            self.ended.set()
        return Response(200, [], json.dumps(sum(self.pieces)).encode())


class Uploads:
    def __init__(self, gateway: LiveGateway) -> None:
        self.gateway = gateway

    def route(self, held: bool = False) -> Taker:
        """A fresh endpoint at POST /upload."""
        taker = Taker()
        route = Route("POST", "/upload", taker, "", Access.KEY, limit=LIMIT, streams=True)
        self.gateway.app._router = Router((route,))
        if not held:
            self.gateway.call(taker.going.set)
        return taker

    def send(self, *lines: str, body: bytes, path: str = "/upload") -> tuple[list[int], bytes]:
        with connect(self.gateway) as client:
            with suppress(ConnectionError):
                client.sendall(head(path, "host: x", "connection: close", *lines) + body)
            answer = rest_of(client)
        return statuses(answer), answer.partition(b"\r\n\r\n")[2]


@pytest.fixture(params=[LiveGateway, OverAsgi], ids=["home", "ASGI"], scope="module")
def uploads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploads]:
    with request.param(tmp_path_factory.mktemp("gateway"), body_limit=BODY_LIMIT) as gateway:
        yield Uploads(gateway)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def test_pieces_are_there_before_the_body_is_whole(uploads: Uploads) -> None:
    taker = uploads.route()
    with connect(uploads.gateway) as client:
        client.sendall(head("/upload", "host: x", "content-length: 10") + b"hello")
        assert taker.first.wait(30)
        assert not taker.ended.is_set()
        client.sendall(b"world")
        assert taker.ended.wait(30)
    assert taker.digest.digest() == hashlib.sha256(b"helloworld").digest()


@pytest.mark.parametrize("size", [0, 1, BODY_LIMIT + 1, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_arrives_whole_and_in_order_whatever_the_limit_of_others(
    uploads: Uploads, size: int, framing: str
) -> None:
    taker, sent = uploads.route(), bytes(at % 251 for at in range(size))
    if framing == "length":
        got = uploads.send(f"content-length: {size}", body=sent)
    else:
        parts = [sent[at : at + 7_000] for at in range(0, size, 7_000)]
        got = uploads.send("transfer-encoding: chunked", body=chunked(*parts))
    assert got[0] == [200]
    assert taker.digest.digest() == hashlib.sha256(sent).digest()
    assert 0 not in taker.pieces


def test_a_body_beyond_the_limit_is_413_before_it_is_sent_or_when_it_gets_there(uploads: Uploads) -> None:
    taker = uploads.route()
    assert uploads.send(f"content-length: {LIMIT + 1}", body=b"")[0] == [413]
    assert taker.pieces == []
    taker = uploads.route()
    piece = bytes(2**20)
    body = chunked(*[piece] * (LIMIT // len(piece)), b"x")
    assert uploads.send("transfer-encoding: chunked", body=body)[0] == [413]
    assert sum(taker.pieces) <= LIMIT
    assert taker.ended.is_set()


def test_the_end_of_a_body_does_not_hide_that_it_is_too_large(uploads: Uploads) -> None:
    """All that is too much comes at once, with the end behind it."""
    taker = uploads.route(held=True)
    piece = bytes(2**20)
    with connect(uploads.gateway) as client:
        client.sendall(head("/upload", "host: x", "transfer-encoding: chunked", "connection: close"))
        client.sendall(b"1\r\nx\r\n")
        assert taker.first.wait(30)
        uploads.gateway.call(taker.going.set)
        client.sendall(chunked(*[piece] * (LIMIT // len(piece))))
        assert statuses(rest_of(client)) == [413]


def test_a_slow_taker_keeps_the_client_waiting_and_not_the_bytes(uploads: Uploads) -> None:
    taker, size = uploads.route(held=True), LIMIT
    sent = 0
    with connect(uploads.gateway) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        client.sendall(head("/upload", "host: x", f"content-length: {size}", "connection: close"))
        client.sendall(b"x" * 1000)
        assert taker.first.wait(30)
        client.settimeout(0.5)
        with suppress(TimeoutError):
            while sent < size - 1000:
                sent += client.send(b"x" * min(65536, size - 1000 - sent))
        assert sent < size // 2  # the sockets' own buffers
        if uploads.gateway.protocol is protocol.Protocol:
            held = [
                exchange._waiting
                for connection in uploads.gateway._server.server_state.connections
                for exchange in connection._exchanges  # type: ignore[union-attr]
            ]
            assert max(held) <= protocol.HIGH_WATER + 256 * 1024
        uploads.gateway.call(taker.going.set)
        client.settimeout(20)
        client.sendall(b"x" * (size - 1000 - sent))
        assert statuses(rest_of(client)) == [200]
    assert sum(taker.pieces) == size


def test_a_client_that_sends_too_slowly_gets_408(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "FIRST_BYTE", 0.1)
    monkeypatch.setattr(body, "WINDOW", 0.1)
    for begun in (b"", b"x"):
        taker = uploads.route()
        with connect(uploads.gateway) as client:
            client.sendall(head("/upload", "host: x", "content-length: 100000") + begun)
            assert statuses(rest_of(client)) == [408]
        assert taker.ended.is_set()


def test_a_client_is_not_slow_while_the_gateway_keeps_it_waiting(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = uploads.route(held=True)
    size = 200_000
    with connect(uploads.gateway) as client:
        client.sendall(head("/upload", "host: x", f"content-length: {size}", "connection: close") + b"x")
        assert taker.first.wait(30)
        monkeypatch.setattr(body, "WINDOW", 0.2)
        threading.Event().wait(0.5)  # longer than two windows
        monkeypatch.undo()
        uploads.gateway.call(taker.going.set)
        client.sendall(b"x" * (size - 1))
        assert statuses(rest_of(client)) == [200]


def test_a_client_that_leaves_ends_the_taking(uploads: Uploads) -> None:
    taker = uploads.route()
    with connect(uploads.gateway) as client:
        client.sendall(head("/upload", "host: x", "content-length: 100000") + b"x" * 2000)
        assert taker.first.wait(30)
    assert taker.ended.wait(30)
    assert ping_table(uploads)


def ping_table(uploads: Uploads) -> bool:
    uploads.route()
    return uploads.send("content-length: 2", body=b"ok")[0] == [200]


def test_a_compressed_body_is_unpacked_on_its_way_within_the_limit(uploads: Uploads) -> None:
    sent = bytes(at % 251 for at in range(400_000))
    for packed, status in (
        (gzip.compress(sent), 200), (gzip.compress(sent)[:-4], 400), (gzip.compress(sent) + b"x", 400),
        (b"x" * 100, 400), (gzip.compress(bytes(LIMIT + 1)), 413),
    ):  # fmt: skip
        taker = uploads.route()
        got = uploads.send(f"content-length: {len(packed)}", "content-encoding: gzip", body=packed)
        assert got[0] == [status]
        if status == 200:
            assert taker.digest.digest() == hashlib.sha256(sent).digest()
            assert max(taker.pieces) <= body.PIECE
    uploads.route()
    assert uploads.send("content-length: 1", "content-encoding: br", body=b"x")[0] == [415]


def test_a_query_comes_decoded_in_order_with_repeated_names(uploads: Uploads) -> None:
    taker = uploads.route()
    path = "/upload?n=a%20b&m=1&n=c+d&n=&n=%C3%A9"
    assert uploads.send("content-length: 0", body=b"", path=path)[0] == [200]
    assert taker.query == ["a b", "c d", "", "é"]
    for bad in ("/upload?" + "&".join(["n=1"] * (MOST_FIELDS + 1)), "/upload?n=%ff"):
        assert uploads.send("content-length: 0", body=b"", path=bad)[0] == [400]


def test_a_query_that_nobody_reads_is_not_looked_at(uploads: Uploads) -> None:
    uploads.gateway.app._router = Router((Route("GET", "/ping", pong, "", Access.OPEN),))
    with connect(uploads.gateway) as client:
        line = "/ping?" + "n=%ff&" * (MOST_FIELDS + 1)
        client.sendall(head(line, "host: x", "connection: close", method="GET"))
        assert statuses(rest_of(client)) == [200]


async def pong(_: Request) -> Response:
    return Response(200, [], b"pong")


# Lambda


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize(
    "event",
    [
        {"body": "aGVsbG8=", "isBase64Encoded": True},
        {"body": "hello"},
    ],
)
def test_on_lambda_a_stream_is_the_body_that_the_event_has(event: dict[str, Any]) -> None:
    request = proxy_events.request(**event)
    assert asyncio.run(whole(request.stream())) == b"hello"
    request = proxy_events.request(limit=4, **event)
    with pytest.raises(BodyTooLarge):
        asyncio.run(whole(request.stream()))


def test_on_lambda_a_query_is_what_api_gateway_decoded() -> None:
    several = {"multiValueQueryStringParameters": {"n": ["a b", "", "é"], "m": ["1"]}}
    single = {"multiValueQueryStringParameters": None, "queryStringParameters": {"n": "x"}}
    assert proxy_events.request(**several).query.all("n") == ["a b", "", "é"]
    assert proxy_events.request(**single).query.all("n") == ["x"]
    assert proxy_events.request().query.all("n") == []
    many = {"multiValueQueryStringParameters": {"n": ["1"] * (MOST_FIELDS + 1)}}
    with pytest.raises(InvalidRequest):
        proxy_events.request(**many).query.get("n")


def test_of_a_repeated_field_the_last_counts() -> None:
    query = Query("a=1&a=2")
    assert (query.get("a"), query.get("b", "none")) == ("2", "none")


def test_an_upload_ends_when_the_server_goes_down(tmp_path: Path) -> None:
    with LiveGateway(tmp_path, drain=0.2) as gateway:
        uploads = Uploads(gateway)
        assert ping(gateway)
        taker = uploads.route()
        with connect(gateway) as client:
            client.sendall(head("/upload", "host: x", "content-length: 100000") + b"x" * 2000)
            assert taker.first.wait(30)
            gateway.begin_stop()
            answer = rest_of(client)
    assert statuses(answer) == [503]
    assert taker.ended.is_set()
