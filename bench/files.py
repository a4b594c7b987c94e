"""A large file by address, on its way to the provider: memory, processor time, and whether both legs overlap.

    .venv/bin/python bench/files.py [MB] [MB a second of each leg]

Three processes on loopback: the resolver alone, and beside it a web server and a provider that are paced. A
video is fetched, uploaded and deleted; a document is digested and read, too. The first run, 1 MB, warms up.
Each run is followed by a bare relay of the same bytes, which only receives and sends: what this machine takes
for that at that moment.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from multiprocessing.connection import Connection
from typing import Literal

from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.resolver import FileResolver
from kimi_gateway.files.texts import Texts
from kimi_gateway.net.fetch.fetcher import Fetcher
from kimi_gateway.net.http import Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.pivot.attachments import Address, Attachment
from kimi_gateway.providers.moonshot.provider import Moonshot
from kimi_gateway.providers.provider import Token, Upstream
from kimi_gateway.providers.tokens.outages import LocalOutageLog
from kimi_gateway.providers.tokens.pool import Pool
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.memory_cache import MemoryCache

MB = 10**6
PIECE = 64 * 1024
HEADS = {"video": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "document": b"%PDF-1.7\n"}
READ = 256 * 1024
CHAT = b"/v1/chat/completions"
CHUNK = {
    "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k3",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
EVENTS = f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n".encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(EVENTS)
) + EVENTS


class Paced:
    """Lets `rate` bytes a second pass."""

    def __init__(self, rate: float) -> None:
        self._rate, self._begun, self._passed = rate, time.monotonic(), 0

    async def passed(self, count: int) -> None:
        self._passed += count
        ahead = self._passed / self._rate - (time.monotonic() - self._begun)
        if ahead > 0.005:
            await asyncio.sleep(ahead)


async def _body(reader: asyncio.StreamReader, head: bytes) -> AsyncIterator[bytes]:
    """Of known length, or in chunks."""
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    left = int(lines.get(b"content-length", b"0"))
    while left:
        data = await reader.read(min(left, PIECE))
        left -= len(data)
        yield data
    if lines.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()


def serve(ports: Connection, rate: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1]
                if path == CHAT:
                    async for _ in _body(reader, head):
                        pass
                    writer.write(ANSWER)
                    continue
                if path.startswith(b"/v1/files"):
                    pace, count = Paced(rate), 0
                    async for data in _body(reader, head):
                        count += len(data)
                        await pace.passed(len(data))
                    told = json.dumps(
                        {"id": "file_1", "bytes": count, "filename": "f", "deleted": True, "content": "text"}
                    ).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(told) + told)
                    continue
                size, pace = int(path.rpartition(b"/")[2]), Paced(rate)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
                for at in range(0, size, PIECE):
                    start = HEADS[path.split(b"/")[1].decode()]
                    data = (start if not at else b"").ljust(min(PIECE, size - at), b"v")
                    writer.write(data)
                    await writer.drain()
                    await pace.passed(len(data))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)
        ports.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def relay(port: int, kind: str, size: int) -> float:
    """Processor seconds of a relay that does nothing else."""
    with (
        socket.create_connection(("127.0.0.1", port)) as web,
        socket.create_connection(("127.0.0.1", port)) as provider,
    ):
        web.sendall(b"GET /%b/%d HTTP/1.1\r\n\r\n" % (kind.encode(), size))
        provider.sendall(b"POST /v1/files HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size)
        buffer = memoryview(bytearray(READ))
        left, begun = size, time.process_time()
        rest = web.recv(4096).partition(b"\r\n\r\n")[2]
        while rest or left:
            provider.sendall(rest)
            left -= len(rest)
            rest = buffer[: web.recv_into(buffer)] if left else b""
        return time.process_time() - begun


async def resolve(
    port: int, kind: Literal["video", "document"], sizes: Sequence[int]
) -> list[tuple[float, float, int]]:
    """For each size: seconds, processor seconds, and by how many KiB the largest resident set grew."""
    client = Http1Client()
    moonshot = Moonshot(client, f"http://127.0.0.1:{port}/v1", Timeouts(5, 60), 2**20)
    pool = Pool(lambda: (Token.of("sk-bench"),), LocalOutageLog(), time.time)
    upstream = Upstream(moonshot, pool)

    async def names(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher([f"files.example:{port}"], resolver=names)
    store = MemoryStore()
    cleaner = Cleaner(store, lambda: upstream, time.time)
    texts = Texts(MemoryCache(), time.time, 0)
    resolver = FileResolver(store, lambda: upstream, texts, cleaner, lambda: fetcher, time.time, Bounds())
    found = []
    for size in sizes:
        begun, worked, peak = time.monotonic(), time.process_time(), _peak()
        wanted = Attachment("content.0", kind, Address(f"http://files.example:{port}/{kind}/{size}"))
        async with resolver.resolve("acc_bench", [wanted]) as resolution:
            seconds, cpu = time.monotonic() - begun, time.process_time() - worked
            assert len(resolution.results) == 1  # noqa: S101
        await cleaner.rest(5)
        assert cleaner.uploads == cleaner.deletions  # noqa: S101
        found.append((seconds, cpu, _peak() - peak))
    await fetcher.close()
    await client.close()
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 80
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, rate * MB), daemon=True)
    process.start()
    port, leg = here.recv(), megabytes / rate
    kinds: tuple[Literal["video", "document"], ...] = ("video", "document")
    for kind in kinds:
        _, (seconds, cpu, growth) = asyncio.run(resolve(port, kind, [MB, int(megabytes * MB)]))
        bare = relay(port, kind, int(megabytes * MB))
        print(
            f"{kind} of {megabytes:.0f} MB: {seconds:.2f} s = {seconds / leg:.2f} of one leg ({leg:.2f} s);"
            f" {cpu * 1000 / megabytes:.2f} ms of processor time a MB, {cpu / bare:.1f} times the bare relay"
            f" ({bare * 1000 / megabytes:.2f}); memory +{growth / 1024:.1f} MiB"
        )
    process.terminate()


if __name__ == "__main__":
    main()
