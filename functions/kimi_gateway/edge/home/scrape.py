"""`GET /metrics` for Prometheus, on an address of its own, so that clients of the gateway cannot read it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kimi_gateway.edge.home.counting import Counting
from kimi_gateway.observe.exposition import TYPE, text

WITHIN = 5.0  # seconds for a scrape
LONGEST_HEAD = 8 * 1024  # bytes of a request
MOST = 16  # scrapes at a time


class Scrape:
    """Answers from `start` to `stop`. Several workers share the address, and each answers for all of them."""

    def __init__(self, counting: Counting, host: str, port: int) -> None:
        self._counting, self._host, self._port = counting, host, port
        self._open = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None  # noqa: S101  it was started
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises OSError if the address cannot be used."""
        self._server = await asyncio.start_server(
            self._answer, self._host, self._port, limit=LONGEST_HEAD, backlog=MOST,
            reuse_port=self._counting.shared or None,
        )  # fmt: skip

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST:
                async with asyncio.timeout(WITHIN):
                    await self._scraped(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # a scraper that left, or no scraper
        finally:
            self._open -= 1
            with suppress(OSError):
                writer.close()

    async def _scraped(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            status, body = "404 Not Found", "Metrics are at /metrics.\n"
        elif method not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", "Use GET.\n"
        else:
            status, body = "200 OK", text(self._counting.look())
        sent = body.encode()
        lines = [f"HTTP/1.1 {status}", f"content-type: {TYPE}", f"content-length: {len(sent)}"]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
        if method != b"HEAD":
            writer.write(sent)
        await writer.drain()
