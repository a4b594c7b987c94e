"""Our HTTP/1.1 client: which connection a request gets, who waits for one, and when one is repeated."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from kimi_gateway.net.connections import ARENA, TURN
from kimi_gateway.net.http import Answer, ConnectFailed, ConnectionLost, Timeouts
from kimi_gateway.net.http1 import Http1Client
from support.idle import settle
from support.raw_server import RawServer

pytestmark = pytest.mark.anyio

TIMES = Timeouts(connect=30, first_byte=30)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
MANY = [OK] * 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer(MANY) as server:
        yield server


async def ask(client: Http1Client, url: str, method: str = "POST", times: Timeouts = TIMES) -> bytes:
    async with client.send(method, url, {}, b"", times) as answer:
        return await answer.read(100)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_client_at_rest_has_no_idle_connections(server: RawServer) -> None:
    client = Http1Client()
    async with client.send("GET", server.url, {}, b"", TIMES) as running:
        await ask(client, server.url)
        client.rest()
        assert await running.read(100) == b"hi"
    await ask(client, server.url)
    assert [number for number, _ in server.requests] == [0, 1, 0]
    client.rest()
    await until(lambda: not client._pool._open)
    await client.close()


async def test_the_connection_that_fell_idle_last_is_taken_first(server: RawServer) -> None:
    client = Http1Client()
    async with AsyncExitStack() as last, AsyncExitStack() as first:
        for stack in (first, last):
            answer = await stack.enter_async_context(client.send("GET", server.url, {}, b"", TIMES))
            await answer.read(100)
    for _ in range(3):
        await ask(client, server.url)
    assert [number for number, _ in server.requests] == [0, 1, 1, 1, 1]
    await client.close()


async def test_an_idle_connection_is_not_taken_after_its_time(server: RawServer) -> None:
    clock = Clock()
    client = Http1Client(idle_age=30, clock=clock)
    for later in (0, 29.9, 30.1):
        clock.now += later
        await ask(client, server.url)
    assert [number for number, _ in server.requests] == [0, 0, 1]
    await client.close()


async def test_an_idle_connection_is_closed_after_its_time_without_a_request(server: RawServer) -> None:
    client = Http1Client(idle_age=0.02)
    await ask(client, server.url)
    await until(server.writers[0].is_closing)
    await client.close()


async def test_at_the_bound_a_request_waits_for_the_one_before(server: RawServer) -> None:
    client = Http1Client(1)
    assert await asyncio.gather(*(ask(client, server.url) for _ in range(5))) == [b"hi"] * 5
    assert server.accepted == 1
    await client.close()


async def test_at_the_bound_an_idle_connection_of_another_server_gives_way(server: RawServer) -> None:
    client = Http1Client(1)
    async with RawServer(MANY) as other:
        await ask(client, other.url)
        assert await ask(client, server.url) == b"hi"
        await until(other.writers[0].is_closing)
    await client.close()


async def test_at_the_bound_a_busy_connection_gives_way_when_it_is_left(server: RawServer) -> None:
    client = Http1Client(1)
    async with RawServer(MANY) as other:
        async with client.send("GET", other.url, {}, b"", TIMES) as answer:
            waiting = asyncio.create_task(ask(client, server.url))
            await settle()
            await answer.read(100)
        assert await waiting == b"hi"
    await client.close()


@pytest.mark.parametrize("first", [OK, OK[:-1]], ids=["given a connection", "given a slot"])
async def test_a_wait_for_a_connection_ends_in_time_and_holds_nobody_up(first: bytes) -> None:
    client = Http1Client(1)
    async with RawServer([first, *MANY], MANY) as server:
        async with client.send("GET", server.url, {}, b"", TIMES):
            with pytest.raises(ConnectFailed):
                await ask(client, server.url, times=Timeouts(connect=0.01, first_byte=5))
            waiting = asyncio.create_task(ask(client, server.url))
            await settle()
        assert await waiting == b"hi"
    await client.close()


@pytest.mark.parametrize("first", [OK, OK[:-1]], ids=["given a connection", "given a slot"])
async def test_who_is_cancelled_as_its_turn_comes_passes_it_on(first: bytes) -> None:
    client = Http1Client(1)
    async with RawServer([first, *MANY], MANY) as server:
        async with client.send("GET", server.url, {}, b"", TIMES):
            cancelled, next_one = (asyncio.create_task(ask(client, server.url)) for _ in range(2))
            await settle()
        await asyncio.sleep(0)  # the slot is given when the socket is closed, a turn later
        cancelled.cancel()
        assert await next_one == b"hi"
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await ask(client, server.url) == b"hi"
    await client.close()


async def test_a_failed_connect_leaves_its_slot_to_others(server: RawServer) -> None:
    client = Http1Client(1)
    with socket.socket() as free, socket.socket() as mute:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectFailed):
            await ask(client, f"http://127.0.0.1:{free.getsockname()[1]}/")
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        connecting = asyncio.create_task(ask(client, f"https://127.0.0.1:{mute.getsockname()[1]}/"))
        await settle()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
    assert await ask(client, server.url) == b"hi"
    await client.close()


async def test_closing_the_client_ends_what_runs_and_what_waits() -> None:
    client = Http1Client(1)
    async with RawServer([b""], [b""]) as server:
        server.connections = [[OK[:-1], RawServer.KEEP]]
        exchange = client.send("GET", server.url, {}, b"", TIMES)
        answer: Answer = await exchange.__aenter__()
        waiting = asyncio.create_task(ask(client, server.url, times=Timeouts(connect=600, first_byte=5)))
        await settle()
        await client.close()
        with pytest.raises(ConnectionLost):
            await answer.read(100)
        await exchange.__aexit__(None, None, None)
        with pytest.raises(ConnectFailed):
            await waiting
        with pytest.raises(ConnectFailed):
            await ask(client, server.url)


async def test_closing_the_client_ends_what_connects(server: RawServer) -> None:
    client = Http1Client()
    connecting = asyncio.create_task(ask(client, server.url))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConnectFailed):
        await connecting
    assert server.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_on_a_stale_connection_is_repeated_on_a_fresh_one(method: str) -> None:
    client = Http1Client()
    async with RawServer([OK, b""], MANY) as server:
        await ask(client, server.url)
        await ask(client, server.url, method)
    assert [number for number, _ in server.requests] == [0, 0, 1]
    await client.close()


async def test_it_is_repeated_once_only_and_not_after_a_first_byte() -> None:
    client = Http1Client()
    async with RawServer([OK, b""], [b""], [OK, b"H"]) as server:
        await ask(client, server.url)
        with pytest.raises(ConnectionLost):
            await ask(client, server.url, "GET")
        assert [number for number, _ in server.requests] == [0, 0, 1]
        await ask(client, server.url)
        with pytest.raises(ConnectionLost):
            await ask(client, server.url, "GET")
    assert [number for number, _ in server.requests] == [0, 0, 1, 2, 2]
    await client.close()


async def test_it_is_not_repeated_on_another_idle_connection_which_may_be_as_stale() -> None:
    client = Http1Client()
    async with RawServer([OK, b""], [OK, b""], MANY) as server:
        async with client.send("GET", server.url, {}, b"", TIMES):
            await ask(client, server.url)
        await ask(client, server.url, "GET")
    assert [number for number, _ in server.requests] == [0, 1, 0, 2]
    await client.close()


async def test_a_fresh_connection_that_closes_is_the_servers_answer() -> None:
    client = Http1Client()
    async with RawServer([b""], MANY) as server:
        with pytest.raises(ConnectionLost):
            await ask(client, server.url, "GET")
    assert [number for number, _ in server.requests] == [0]
    await client.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_that_may_change_something_is_not_repeated(method: str) -> None:
    client = Http1Client()
    async with RawServer([OK, b""], MANY) as server:
        await ask(client, server.url)
        with pytest.raises(ConnectionLost):
            await ask(client, server.url, method)
    assert [number for number, _ in server.requests] == [0, 0]
    await client.close()


async def test_a_post_of_which_no_byte_could_be_sent_goes_out_on_a_fresh_connection() -> None:
    """The reset is not seen before the write: server and client take no turn of the loop in between."""
    client, loop = Http1Client(), asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        async def serve() -> socket.socket:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            assert (await loop.sock_recv(connection, 4096)).startswith(b"POST / HTTP/1.1\r\n")
            await loop.sock_sendall(connection, OK)
            return connection

        _, connection = await asyncio.gather(ask(client, url), serve())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        body, connection = await asyncio.gather(ask(client, url), serve())
        connection.close()
    assert body == b"hi"
    await client.close()


@pytest.mark.parametrize(("streams", "most"), [(2, ARENA), (64, TURN // 64)])
async def test_many_answers_at_a_time_share_a_turn_of_the_loop(streams: int, most: int) -> None:
    """A read is a piece, because its reader takes it at once."""
    size, begun = 48 * 1024, asyncio.Barrier(2 * streams)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        await begun.wait()
        writer.write(b"x" * size)
        await writer.drain()
        writer.close()

    server, client = await asyncio.start_server(serve, "127.0.0.1", 0), Http1Client()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    whole = asyncio.Barrier(streams)

    async def read() -> list[int]:
        async with client.send("GET", url, {}, b"", TIMES) as told:
            await begun.wait()
            pieces = [len(piece) async for piece in told.chunks()]
            await whole.wait()  # none becomes idle before
            return pieces

    async with asyncio.timeout(20):
        read_by_each = await asyncio.gather(*(read() for _ in range(streams)))
    assert {sum(pieces) for pieces in read_by_each} == {size}
    assert max(map(max, read_by_each)) <= most
    assert streams > 2 or max(map(max, read_by_each)) > TURN // 64
    server.close()
    await client.close()
