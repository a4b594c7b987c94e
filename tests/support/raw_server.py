"""A server of a test's own loop that answers with bytes as they are, well-formed or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

Answer = bytes | Sequence[bytes]  # pieces are sent in turns of the loop, so that each is a read of its own


class RawServer:
    """Each connection has its answers, one for each request, and is closed by the server after the last; the
    last connection's answers hold for all that come after it. `KEEP` at the end leaves it open.
    """

    KEEP = b"\0keep"
    host = "127.0.0.1"
    takes_bodies = True

    def __init__(self, *connections: Iterable[Answer], tls: ssl.SSLContext | None = None) -> None:
        self.connections = [list(answers) for answers in connections]
        self.requests: list[tuple[int, bytes]] = []  # the connection's number, head and body
        self.writers: list[asyncio.StreamWriter] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def accepted(self) -> int:
        return len(self.writers)

    async def left(self) -> None:
        """Until every connection so far is down."""
        await asyncio.gather(*self._tasks)

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if self._tls else 'http'}://{self.host}:{port}/"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.left()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = len(self.writers)
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for answer in self.connections[min(number, len(self.connections) - 1)]:
                if answer == self.KEEP:
                    await (reader.read() if self.takes_bodies else writer.wait_closed())
                    break
                self.requests.append((number, await self._request(reader)))
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    if writer.is_closing():
                        break
                    writer.write(piece)
                    await asyncio.sleep(0)
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:") and self.takes_bodies:
                length = int(line.partition(b":")[2])
        return head + await reader.readexactly(length)
