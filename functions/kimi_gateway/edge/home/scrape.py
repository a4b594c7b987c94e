"""`GET /metrics` for Prometheus, on an address of its own, so that clients of the gateway cannot read it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from kimi_gateway.app import Running
from kimi_gateway.observe import sinks
from kimi_gateway.observe.metrics import Gauges, Metrics

TYPE = "text/plain; version=0.0.4; charset=utf-8"
WITHIN = 5.0  # seconds for a scrape
LONGEST_HEAD = 8 * 1024  # bytes of a request
MOST = 16  # scrapes at a time


class Scrape:
    """Counts from `start` to `stop`."""

    def __init__(self, running: Running, host: str, port: int) -> None:
        self._running, self._host, self._port = running, host, port
        self._metrics = Metrics()
        self._open = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None  # noqa: S101  it was started
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises OSError if the address cannot be used."""
        self._server = await asyncio.start_server(
            self._answer, self._host, self._port, limit=LONGEST_HEAD, backlog=MOST
        )
        sinks.append(self._metrics)

    async def stop(self) -> None:
        if self._metrics in sinks:
            sinks.remove(self._metrics)
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
            status, body = "200 OK", self._metrics.text(self._gauges())
        sent = body.encode()
        lines = [f"HTTP/1.1 {status}", f"content-type: {TYPE}", f"content-length: {len(sent)}"]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
        if method != b"HEAD":
            writer.write(sent)
        await writer.drain()

    def _gauges(self) -> Gauges:
        pool = self._running.pool
        return {
            "requests_running": {(): len(self._running.gateway.turns)},
            "upstream_token_up": {(token.id,): float(pool.available(token)) for token in pool.all()},
            "process_resident_bytes": {(): _resident()},
            "process_cpu_seconds_total": {(): time.process_time()},
        }


def _resident() -> float:
    """Bytes; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize()
    return 0.0
