"""A relay in front of the gateway that keeps each request as the program sent it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httptools

from support.loop_thread import LoopThread


@dataclass
class Sent:
    """One request of the program; `target` with its query, header names in lower case."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytearray = field(default_factory=bytearray)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def body(self) -> Any:
        """The body, parsed where it is JSON."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return self.raw.decode("utf-8", "replace")


class _Reader:
    """httptools' callbacks for the requests of one connection."""

    def __init__(self, requests: list[Sent]) -> None:
        self.requests = requests
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.sent = Sent()

    def on_url(self, url: bytes) -> None:
        self.sent.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.sent.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.sent.raw += body

    def on_message_complete(self) -> None:
        self.sent.method = self.parser.get_method().decode()
        self.requests.append(self.sent)


class Tap(LoopThread):
    """`with Tap(port) as tap:` in front of 127.0.0.1:port; `tap.url` is the program's base."""

    def __init__(self, port: int) -> None:
        self.requests: list[Sent] = []
        self._to = port
        super().__init__("tap")

    async def _run(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, answers = await asyncio.open_connection("127.0.0.1", self._to)
        seen = _Reader(self.requests)

        async def up() -> None:
            while data := await reader.read(65536):
                seen.parser.feed_data(data)
                answers.write(data)
                await answers.drain()
            answers.close()

        async def down() -> None:
            while data := await onward.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        try:
            await asyncio.gather(up(), down())
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
            answers.transport.abort()
