"""CPU of one request and of one stream through each HTTP client, against the least that asyncio and httptools
can do. One process, interleaved rounds, so that the ratios of a round share the machine's mood; the upstream
is another process, whose time does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import cast

import httptools

from kimi_gateway.net.http import Client, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.httpx_client import HttpxClient

HEADERS = {"authorization": "Bearer sk-0123456789abcdef", "content-type": "application/json", "accept": "*/*"}
BODY = b'{"model":"kimi-k3","messages":[{"role":"user","content":"' + b"x" * 200 + b'"}]}'
TIMES = Timeouts(connect=10, first_byte=30)
CHUNK = b"data: " + b"x" * 168 + b"\n\n"  # 176 bytes, as a content chunk of the platform
CHUNKS = 100
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 02:00:00 GMT\r\nserver: bench\r\nconnection: keep-alive\r\n"
    b"content-type: application/json\r\nmsh-request-id: 0123456789\r\nvary: origin\r\nvia: bench\r\n"
)
SMALL = HEAD + b"content-length: %d\r\n\r\n" % len(CHUNK) + CHUNK
FRAME = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)

Ask = Callable[[str], Awaitable[int]]  # a path, to the bytes of the answer's body


class Upstream(asyncio.Protocol):
    """Answers /small at once, /burst in chunks back to back, /paced in chunks a millisecond apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(BODY):
            return
        path = self.received.split(b" ", 2)[1]
        self.received = b""
        if path == b"/small":
            self.transport.write(SMALL)
        else:
            self.transport.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
            self.chunk(CHUNKS, path == b"/paced")

    def chunk(self, left: int, paced: bool) -> None:
        while left:
            self.transport.write(FRAME)
            left -= 1
            if paced:
                asyncio.get_running_loop().call_later(0.001, self.chunk, left, paced)
                return
        self.transport.write(b"0\r\n\r\n")


def upstream(told: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


class RawConnection(asyncio.BufferedProtocol):
    """What a relay cannot do without: a read, the parser, a future for the end."""

    buffer = memoryview(bytearray(64 * 1024))
    ended: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self.received = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.parser.feed_data(self.buffer[:size])

    def on_body(self, body: bytes) -> None:
        self.received += len(body)

    def on_message_complete(self) -> None:
        self.ended.set_result(None)


class Raw:
    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[RawConnection] = []
        lines = [f"{name}: {value}\r\n" for name, value in HEADERS.items()]
        self.head = ("host: x\r\n" + "".join(lines) + f"content-length: {len(BODY)}\r\n\r\n").encode()

    async def ask(self, path: str) -> int:
        loop = asyncio.get_running_loop()
        if self.idle:
            connection = self.idle.pop()
        else:
            _, connection = await loop.create_connection(RawConnection, "127.0.0.1", self.port)
        connection.received = 0
        connection.ended = loop.create_future()
        connection.transport.write(b"POST %b HTTP/1.1\r\n" % path.encode() + self.head + BODY)
        await connection.ended
        self.idle.append(connection)
        return connection.received

    async def close(self) -> None:
        for connection in self.idle:
            connection.transport.abort()


def asking(client: Client, port: int) -> Ask:
    async def ask(path: str) -> int:
        received = 0
        async with client.send("POST", f"http://127.0.0.1:{port}{path}", HEADERS, BODY, TIMES) as answer:
            async for chunk in answer.chunks():
                received += len(chunk)
        return received

    return ask


async def cpu(ask: Ask, path: str, at_once: int, count: int) -> float:
    """Milliseconds of this process for one request."""
    left = iter(range(count))
    expected = len(CHUNK) * (1 if path == "/small" else CHUNKS)

    async def worker() -> None:
        for _ in left:
            if await ask(path) != expected:
                raise SystemExit("an answer is not what was sent")

    gc.collect()
    start = time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.process_time() - start) * 1000 / count


async def measure(port: int, rounds: int, requests: int, streams: int) -> None:
    raw = Raw(port)
    clients: list[Client] = [HttpxClient(), Http1Client()]
    asks: dict[str, Ask] = {"raw": raw.ask}
    asks |= {type(client).__name__: asking(client, port) for client in clients}
    cases = [
        ("small request, 1 at a time", "/small", 1, requests),
        ("small request, 64 at once", "/small", 64, requests),
        ("100 chunks back to back", "/burst", 1, streams),
        ("100 chunks 1 ms apart, 16 at once", "/paced", 16, streams),
    ]
    for title, path, at_once, count in cases:
        taken: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(rounds + 1):
            for name, ask in asks.items():
                spent = await cpu(ask, path, at_once, count)
                if turn:  # the first round opens connections and warms up
                    taken[name].append(spent)
        print(f"\n{title}, {rounds} rounds of {count}")
        for name, spents in taken.items():
            to_raw = [spent / least for spent, least in zip(spents, taken["raw"], strict=True)]
            to_httpx = [spent / most for spent, most in zip(spents, taken["HttpxClient"], strict=True)]
            shown = f"raw {spread(to_raw)}  httpx2 {spread(to_httpx)}"
            print(f"  {name:12}{statistics.median(spents):8.3f} ms  {shown}")
    await raw.close()
    for client in clients:
        await client.close()


def spread(ratios: list[float]) -> str:
    return f"× {statistics.median(ratios):5.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1000, help="in a round")
    parser.add_argument("--streams", type=int, default=64, help="in a round")
    arguments = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=upstream, args=(there,), daemon=True)
    process.start()
    try:
        asyncio.run(
            measure(
                here.recv(),
                min(max(1, arguments.rounds), 50),
                min(max(64, arguments.requests), 20_000),
                min(max(16, arguments.streams), 2_000),
            )
        )
    finally:
        process.kill()
        process.join()
