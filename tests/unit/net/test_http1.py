"""Our HTTP/1.1 client: what keeps one answer apart from the next, its limits, and the pace of its reader."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_gateway.net.http import Client, ConnectionLost, TimedOut, Timeouts
from kimi_gateway.net.http1 import Http1Client
from support.idle import pass_time, settle
from support.raw_server import RawServer

pytestmark = pytest.mark.anyio

TIMES = Timeouts(connect=30, first_byte=30)
OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
TO_THE_END = OK + b"\r\n"
OTHER = OK + b"content-length: 5\r\n\r\nother"
EVIL = OK + b"content-length: 4\r\n\r\nevil"


async def ask(client: Client, url: str, method: str = "GET", body: bytes = b"") -> bytes:
    async with client.send(method, url, {}, body, TIMES) as answer:
        return await answer.read(2**30)


AFTER = {
    "another answer": HI + EVIL,
    "another answer, cut anywhere": [HI + EVIL[:7], EVIL[7:]],
    "another answer, in a read of its own": [HI, EVIL],
    "no answer": HI + b"junk",
    "one byte": HI + b"x",
    "an answer after chunks": CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + EVIL,
    "an answer after none is due": b"HTTP/1.1 204 No\r\n\r\n" + EVIL,
}


@pytest.mark.parametrize("first", AFTER.values(), ids=AFTER)
async def test_what_comes_after_an_answer_is_nobodys(first: bytes | list[bytes]) -> None:
    client = Http1Client()
    async with RawServer([first, RawServer.KEEP], [OTHER]) as server:
        assert await ask(client, server.url) in (b"hi", b"")
        await settle()
        assert await ask(client, server.url) == b"other"
    assert server.accepted == 2
    await client.close()


async def test_what_comes_before_a_request_is_nobodys() -> None:
    client = Http1Client()
    async with RawServer([HI, RawServer.KEEP], [OTHER]) as server:
        await ask(client, server.url)
        server.writers[0].write(EVIL)
        await settle()
        assert await ask(client, server.url) == b"other"
    await client.close()


async def test_an_answer_to_head_takes_its_connection_with_it() -> None:
    client = Http1Client()
    async with RawServer([OK + b"content-length: 90\r\n\r\n" + EVIL, RawServer.KEEP], [OTHER]) as server:
        assert await ask(client, server.url, "HEAD") == b""
        assert await ask(client, server.url) == b"other"
    await client.close()


KEPT = {
    "1.1": (HI, True),
    "1.1, close": (HI.replace(b"OK\r\n", b"OK\r\nConnection: Close\r\n"), False),
    "1.1, close among others": (HI.replace(b"OK\r\n", b"OK\r\nConnection: x, close\r\n"), False),
    "1.1, chunked": (CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n\r\n", True),
    "1.0": (HI.replace(b"1.1", b"1.0"), False),
    "1.0, keep-alive": (HI.replace(b"1.1 200 OK\r\n", b"1.0 200 OK\r\nConnection: Keep-Alive\r\n"), True),
    "204": (b"HTTP/1.1 204 No\r\n\r\n", True),
    "304 with a length": (b"HTTP/1.1 304 No\r\ncontent-length: 90\r\n\r\n", True),
    "after an interim answer": (b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" + HI, True),
}


@pytest.mark.parametrize(("answer", "kept"), KEPT.values(), ids=KEPT)
async def test_a_connection_is_kept_as_the_answer_says(answer: bytes, kept: bool) -> None:
    client = Http1Client()
    async with RawServer([answer, answer, RawServer.KEEP]) as server:
        for _ in range(2):
            await ask(client, server.url)
        assert server.accepted == (1 if kept else 2)
    await client.close()


async def test_an_answer_to_half_a_request_is_read_and_its_connection_closed() -> None:
    client = Http1Client()
    async with RawServer([]) as server:
        server.takes_bodies = False
        server.connections = [[HI.replace(b"200 OK", b"413 Too Large"), RawServer.KEEP]]
        for _ in range(2):
            async with client.send("POST", server.url, {}, bytes(2**26), TIMES) as answer:
                assert (answer.status, await answer.read(9)) == (413, b"hi")
        assert server.accepted == 2
    await client.close()


FLOODS = {
    "interim answers": b"HTTP/1.1 103 Hint\r\nx: %b\r\n\r\n" % (b"x" * 1000) * 100,
    "one endless header": OK + b"x: " + b"x" * 2**20,
    "trailers": CHUNKED + b"0\r\n" + b"x: y\r\n" * 100_000,
    "an extension": CHUNKED + b"1;" + b"x" * 2**20,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_a_flood_without_an_end_is_refused(flood: bytes) -> None:
    client = Http1Client()
    async with RawServer([flood, RawServer.KEEP]) as server:
        with pytest.raises(ConnectionLost):
            await ask(client, server.url)
    await client.close()


async def test_who_does_not_read_makes_the_server_wait() -> None:
    client, sent = Http1Client(), 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"content-length: %d\r\n\r\n" % 2**26)
        for _ in range(2**10):
            writer.write(bytes(2**16))
            await writer.drain()
            sent += 2**16
        writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with client.send("GET", url, {}, b"", TIMES) as answer:
        before = -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 2**25  # what sockets hold
        assert len(await answer.read(2**30)) == 2**26
    server.close()
    await client.close()


async def test_a_read_that_is_given_up_loses_nothing() -> None:
    client = Http1Client()
    async with (
        RawServer([HI[:-2], RawServer.KEEP]) as server,
        client.send("GET", server.url, {}, b"", TIMES) as answer,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(answer.chunks()), 0.01)
        server.writers[0].write(b"h")
        assert await anext(answer.chunks()) == b"h"
        server.writers[0].write(b"i")
        assert await answer.read(9) == b"i"
    await client.close()


async def test_all_that_came_is_one_chunk() -> None:
    client = Http1Client()
    async with (
        RawServer([CHUNKED + b"1\r\na\r\n1\r\nb\r\n", RawServer.KEEP]) as server,
        client.send("GET", server.url, {}, b"", TIMES) as answer,
    ):
        assert await anext(answer.chunks()) == b"ab"
    await client.close()


async def test_an_answer_has_one_reader_and_none_once_it_is_left() -> None:
    client = Http1Client()
    async with RawServer([HI[:-2], RawServer.KEEP]) as server:
        async with client.send("GET", server.url, {}, b"", TIMES) as answer:
            reader = asyncio.ensure_future(anext(answer.chunks()))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                await anext(answer.chunks())
        with pytest.raises(ConnectionLost):
            await reader
        with pytest.raises(ConnectionLost):
            await answer.read(1)
    await client.close()


async def test_a_reader_left_behind_reads_nothing_of_the_next_answer() -> None:
    """It is woken by the end of its own answer, and the connection is another's before it runs."""
    client = Http1Client()
    async with RawServer([HI[:-2], OTHER, RawServer.KEEP]) as server:
        async with client.send("GET", server.url, {}, b"", TIMES) as answer:
            reader = asyncio.ensure_future(anext(answer.chunks()))
            await asyncio.sleep(0)
            connection = answer._connection  # type: ignore[attr-defined]
            connection.get_buffer(2)[:2] = b"hi"
            connection.buffer_updated(2)
        assert await ask(client, server.url) == b"other"
        with pytest.raises(ConnectionLost):
            await reader
    await client.close()


DATA = b"some words, some words, " * 1000
CODED = {
    "gzip": gzip.compress(DATA),
    "x, deflate with its frame": zlib.compress(DATA),
    "y, deflate without": zlib.compress(DATA, wbits=-15),
}


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("size", [1, 10, 10**6])
async def test_a_coding_nobody_asked_for_is_undone(name: str, size: int) -> None:
    client, data = Http1Client(), CODED[name]
    coding = b"gzip" if name == "gzip" else b"Deflate"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    async with RawServer([[OK + b"content-encoding: " + coding + b"\r\n\r\n", *pieces]]) as server:
        assert await ask(client, server.url) == DATA
    await client.close()


async def test_a_coding_that_cannot_be_undone_closes_the_connection() -> None:
    client = Http1Client()
    async with RawServer([OK + b"content-encoding: br\r\n\r\n", RawServer.KEEP]) as server:
        with pytest.raises(ConnectionLost):
            await ask(client, server.url)
        await server.left()
    await client.close()


async def test_a_coding_ends_with_its_last_word() -> None:
    """Here the last bits of the input are taken while some of their output is still to come."""
    client, size = Http1Client(), 2**18 + 5
    data = zlib.compress(bytes(size), 9, wbits=-15)
    async with RawServer([OK + b"content-encoding: deflate\r\n\r\n" + data]) as server:
        assert await ask(client, server.url) == bytes(size)
    await client.close()


@pytest.mark.parametrize(
    "data",
    [gzip.compress(DATA)[:-1], gzip.compress(DATA) + b"x", b"x"],
    ids=["cut", "goes on", "none at all"],
)
async def test_a_coding_that_is_cut_or_goes_on_is_a_lost_connection(data: bytes) -> None:
    client = Http1Client()
    async with RawServer([OK + b"content-encoding: gzip\r\n\r\n" + data]) as server:
        with pytest.raises(ConnectionLost):
            await ask(client, server.url)
    await client.close()


async def test_a_small_answer_does_not_become_a_large_chunk() -> None:
    client, packed = Http1Client(), gzip.compress(b"".join(b"%d," % n for n in range(10**6)))
    async with (
        RawServer([OK + b"content-encoding: gzip\r\n\r\n" + packed]) as server,
        client.send("GET", server.url, {}, b"", TIMES) as answer,
    ):
        sizes = [len(chunk) async for chunk in answer.chunks()]
    assert (max(sizes) <= 2**20, sum(sizes)) == (True, 6_888_890)
    await client.close()


async def test_one_timer_bounds_the_answers_to_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, client, timers = asyncio.get_running_loop(), Http1Client(), 0
    call_at = loop.call_at

    def counted(*given: Any, **more: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*given, **more)

    async def streamed(url: str) -> list[bytes]:  # an answer that is read as a whole has a timer of its own
        async with client.send("GET", url, {}, b"", TIMES) as answer:
            return [chunk async for chunk in answer.chunks()]

    async with RawServer([*[HI] * 5, RawServer.KEEP]) as server:
        await streamed(server.url)
        monkeypatch.setattr(loop, "call_at", counted)
        for _ in range(4):
            await streamed(server.url)
        assert timers == 0
    await client.close()


async def test_a_shorter_wait_on_a_used_connection_ends_in_its_own_time() -> None:
    client = Http1Client()
    async with RawServer([HI, RawServer.KEEP]) as server:
        await ask(client, server.url)
        with pytest.raises(TimedOut):
            async with client.send("POST", server.url, {}, b"", Timeouts(connect=5, first_byte=0.05)):
                pass
    assert server.accepted == 1
    await client.close()


async def test_the_time_of_an_earlier_request_does_not_end_a_slow_upload() -> None:
    client, times = Http1Client(), Timeouts(connect=30, first_byte=30)

    async def slowly() -> AsyncIterator[bytes]:
        await pass_time(31)
        yield b"x"

    async with RawServer([HI, HI, RawServer.KEEP]) as server:
        async with client.send("GET", server.url, {}, b"", times) as answer:
            await answer.read(10)
        async with client.upload(server.url, {"content-length": "1"}, slowly(), times) as answer:
            assert answer.status == 200
    await client.close()


PARTS = [b"1\r\n%d\r\n" % n for n in range(6)]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("gathered", [False, True])
async def test_reading_pauses_in_a_burst_whose_parts_nobody_waits_for(gathered: bool, seconds: float) -> None:
    now = 100.0
    client = Http1Client(clock=lambda: now)
    async with RawServer([CHUNKED + PARTS[0], HI]) as server:
        exchange: Any = client.send("GET", server.url, {}, b"", TIMES)
        paused = []
        async with exchange as answer:
            parts = answer.chunks(gathered)
            assert await anext(parts) == b"0"
            for number, part in enumerate(PARTS[1:], 1):
                now += seconds
                reading = asyncio.ensure_future(anext(parts))
                await asyncio.sleep(0)
                paused.append(not exchange._connection._transport.is_reading())
                server.writers[0].write(part)
                assert await reading == b"%d" % number
            server.writers[0].write(b"0\r\n\r\n")
            assert [part async for part in parts] == []
        assert paused == ([False, False, True, True, True] if gathered and not seconds else [False] * 5)
        assert await ask(client, server.url) == b"hi"
    assert server.accepted == 1
    await client.close()
