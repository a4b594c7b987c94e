"""Uploads with a streamed body: either client sends the same, and neither outlives a body that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from kimi_gateway.net import http
from kimi_gateway.net.http1 import Http1Client
from support.asking import HEADERS, TIMES, Run, runner
from support.raw_server import RawServer
from upstream import ScriptedUpstream, Status

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno"
PATH = "/v1/upload"
PIECE = bytes(range(256)) * 1024

ours = runner(Http1Client)


@pytest.fixture
def up(upstream: ScriptedUpstream) -> ScriptedUpstream:
    upstream.at(PATH, Status(200, "ok"))
    return upstream


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def sending(
    client: http.Client, url: str, body: AsyncIterator[bytes], length: int | None = None, **more: Any
) -> Any:
    headers = HEADERS if length is None else {**HEADERS, "content-length": str(length)}
    return client.upload(url, headers, body, more.get("times", TIMES))


@pytest.mark.parametrize("pieces", [(), (b"x",), (b"", b"a", b"", b"bc"), (PIECE,) * 9], ids=len)
@pytest.mark.parametrize("sized", [True, False])
def test_a_body_arrives_whole_and_the_connection_serves_again(
    run: Run, up: ScriptedUpstream, pieces: tuple[bytes, ...], sized: bool
) -> None:
    async def scenario(client: http.Client) -> None:
        for _ in range(2):
            length = len(b"".join(pieces)) if sized else None
            async with sending(client, up.url.removesuffix("/v1") + PATH, parts(*pieces), length) as answer:
                assert (answer.status, await answer.read(100)) == (200, b"ok")

    run(scenario)
    assert [request.raw for request in up.requests] == [b"".join(pieces)] * 2
    framing = {("content-length" if sized else "transfer-encoding")}
    for request in up.requests:
        assert request.headers.keys() & {"content-length", "transfer-encoding"} == framing
        assert request.headers["authorization"] == HEADERS["authorization"]
    assert len({request.connection for request in up.requests}) == 1


@pytest.mark.parametrize("sized", [True, False])
def test_what_the_body_raises_is_raised_and_the_request_is_never_complete(
    run: Run, up: ScriptedUpstream, sized: bool
) -> None:
    class Broken(Exception): ...

    async def body() -> AsyncIterator[bytes]:
        yield PIECE
        raise Broken

    async def scenario(client: http.Client) -> None:
        url = up.url.removesuffix("/v1") + PATH
        with pytest.raises(Broken):
            async with sending(client, url, body(), 2 * len(PIECE) if sized else None):
                pass

    run(scenario)
    up.until(lambda: up.open_connections == 0)
    assert up.requests == []


@pytest.mark.parametrize("length", [1, 3])
def test_a_body_of_another_length_than_said_is_not_sent_as_that(up: ScriptedUpstream, length: int) -> None:
    async def scenario(client: http.Client) -> None:
        with pytest.raises(http.ConnectFailed, match="cannot be sent"):
            async with sending(client, up.url.removesuffix("/v1") + PATH, parts(b"ab"), length):
                pass

    ours(scenario)
    assert up.requests == []


def test_a_header_that_would_be_a_second_one_is_refused(run: Run, up: ScriptedUpstream) -> None:
    async def scenario(client: http.Client) -> None:
        for name, value in (("x", "a\r\nb: c"), ("content-length", "1\r\nb: c"), ("content-length", "-1")):
            with pytest.raises(http.ConnectFailed, match="cannot be sent"):
                async with client.upload(up.url, {name: value}, parts(b"a"), TIMES):
                    pass

    ours(scenario)
    assert up.requests == []


def on(server: RawServer, scenario: Callable[[http.Client], Any]) -> None:
    async def within(client: http.Client) -> None:
        async with server:
            await scenario(client)

    ours(within)


def test_a_server_that_answers_early_gets_no_more_and_no_other_request() -> None:
    server, given = RawServer([LARGE, RawServer.KEEP]), list[int]()
    server.takes_bodies = False

    async def endless() -> AsyncIterator[bytes]:
        while True:
            given.append(len(PIECE))
            yield PIECE
            await asyncio.sleep(0)

    async def scenario(client: http.Client) -> None:
        for _ in range(2):
            async with sending(client, server.url, endless()) as answer:
                assert (answer.status, await answer.read(100)) == (413, b"no")
        assert server.accepted == 2

    on(server, scenario)
    assert sum(given) < 100 * len(PIECE)


def test_a_slow_server_keeps_the_body_waiting() -> None:
    given = list[int]()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(400):
            given.append(len(PIECE))
            yield PIECE

    async def scenario(client: http.Client) -> None:
        held = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await held.wait()
            left = 400 * len(PIECE)
            while left:
                left -= len(await reader.read(2**20))
            writer.write(OK)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        sent = asyncio.create_task(_whole(client, url, body(), 400 * len(PIECE)))
        before = -1
        while before != len(given):  # until the sockets' own buffers are full
            before = len(given)
            await asyncio.sleep(0.1)
        assert 0 < len(given) < 200
        held.set()
        assert await sent == 200
        server.close()

    ours(scenario)


async def _whole(client: http.Client, url: str, body: AsyncIterator[bytes], length: int) -> int:
    async with sending(client, url, body, length) as answer:
        await answer.read(100)
        return int(answer.status)


def test_a_server_that_goes_away_is_lost_and_a_silent_one_timed_out() -> None:
    async def scenario(client: http.Client) -> None:
        async with RawServer([b""]) as closing:
            with pytest.raises(http.ConnectionLost):
                await _whole(client, closing.url, parts(b"ab"), 2)
        async with RawServer([[]]) as silent:
            silent.connections = [[[], RawServer.KEEP]]
            with pytest.raises(http.TimedOut):
                async with sending(client, silent.url, parts(b"ab"), 2, times=http.Timeouts(5, 0.05)):
                    pass

    ours(scenario)


def test_a_kept_connection_that_closes_under_the_body_is_stale_and_the_next_one_is_new() -> None:
    server = RawServer([OK, []], [OK])

    async def scenario(client: http.Client) -> None:
        assert await _whole(client, server.url, parts(b"a"), 1) == 200
        with pytest.raises(http.Stale):
            await _whole(client, server.url, parts(b"ab"), 2)
        assert await _whole(client, server.url, parts(b"abc"), 3) == 200

    on(server, scenario)
    assert [number for number, _ in server.requests] == [0, 0, 1]
