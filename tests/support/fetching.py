"""A fetcher beside a server of the test's own, and names that resolve as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kimi_gateway.net.fetch.fetcher import Fetcher
from support.raw_server import RawServer
from support.tls import NO_TLS

HI = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"


class Names:
    """A resolver with a table: each asking takes the next answer of a name, the last one stays."""

    def __init__(self, **table: Sequence[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._table = {name.replace("_", "."): list(answers) for name, answers in table.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._table.get(host)
        if answers is None:
            raise OSError("unknown name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@asynccontextmanager
async def fetching(fetcher: Fetcher) -> AsyncIterator[Fetcher]:
    try:
        yield fetcher
    finally:
        await fetcher.close()


def plain(*given: Any, **named: Any) -> Fetcher:
    """One that never speaks TLS."""
    return Fetcher(*given, tls=NO_TLS, **named)


def port_of(server: RawServer) -> int:
    return int(server.url.rstrip("/").rpartition(":")[2])


@asynccontextmanager
async def served(
    *pieces: bytes, head: bytes = b"", **options: object
) -> AsyncIterator[tuple[Fetcher, str, RawServer]]:
    names = Names(a_example=[["127.0.0.1"]])
    async with RawServer([[b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", *pieces]]) as server:
        port = port_of(server)
        async with fetching(plain([f"a.example:{port}"], resolver=names, **options)) as fetcher:  # type: ignore[arg-type]
            yield fetcher, f"http://a.example:{port}/", server
