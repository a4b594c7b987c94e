"""The limit: what a correct HTTP relay in this language costs. httptools finds where messages end, bytes are
handed through, connections are pooled, a slow reader slows the writer. No routes, keys, limits or ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from urllib.parse import urlsplit

import httptools

from upstream import serve_until_told

HOP = frozenset((b"host", b"connection", b"authorization", b"keep-alive", b"proxy-connection"))


class Upstream(asyncio.Protocol):
    """A pooled connection. `client` is who it answers at present."""

    client: Client | None = None

    def __init__(self, pool: list[Upstream]) -> None:
        self._pool = pool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is not None:
            client.transport.write(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        client, self.client = self.client, None
        if self._parser.should_keep_alive():
            self._pool.append(self)
        else:
            self.transport.close()
        if client is not None:
            client.answered()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._pool:
            self._pool.remove(self)
        if self.client is not None:
            self.client.transport.close()


class Client(asyncio.Protocol):
    """A caller's connection: a request is read whole, then sent as it is but for its head."""

    def __init__(self, pool: list[Upstream], host: str, port: int, base: bytes) -> None:
        self._pool = pool
        self._address = (host, port)
        self._base = base
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._lines: list[bytes] = []
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in HOP:
            self._lines.append(b"%b: %b" % (name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._base + self._url.removeprefix(b"/v1")
        first = b"%b %b HTTP/1.1" % (self._parser.get_method(), path)
        own = [b"host: %b:%d" % (self._address[0].encode(), self._address[1]), b"authorization: Bearer sk-up"]
        message = b"\r\n".join([first, *own, *self._lines, b"", b""]) + b"".join(self._body)
        while self._pool:
            upstream = self._pool.pop()
            if not upstream.transport.is_closing():
                self._send(upstream, message)
                return
        self._task = asyncio.create_task(self._connect(message))

    async def _connect(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_connection(lambda: Upstream(self._pool), *self._address)
        except OSError:
            self.transport.close()
        else:
            self._send(upstream, message)

    def _send(self, upstream: Upstream, message: bytes) -> None:
        if self.transport.is_closing():
            upstream.transport.close()
            return
        upstream.client, self._upstream = self, upstream
        upstream.transport.write(message)

    def answered(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.resume_reading()
        self._upstream = None

    def pause_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._upstream is not None:
            self._upstream.client = None
            self._upstream.transport.abort()


async def main(port: int) -> None:
    base = urlsplit(os.environ["BENCH_UPSTREAM"])
    pool: list[Upstream] = []
    host, upstream_port, path = base.hostname or "", base.port or 80, base.path.encode()
    await serve_until_told(lambda: Client(pool, host, upstream_port, path), port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(main(parser.parse_args().port))
