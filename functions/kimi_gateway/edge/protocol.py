"""HTTP/1.1 of the home server: uvicorn opens and ends connections, requests go straight to the gateway."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools

from kimi_gateway.dialects import errors
from kimi_gateway.edge.asgi import App
from kimi_gateway.edge.exchange import Exchange
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio

LARGEST_HEAD = 256 * 1024  # bytes of one request's line and headers, the read it ends in included
LEAST_PATIENCE = 2.0  # seconds with a client that reads nothing, also where the idle time-out is shorter
HIGH_WATER = 64 * 1024  # bytes of a body that nobody has asked for yet, above which the socket is left alone


class Protocol(asyncio.BufferedProtocol):
    """One connection. Requests that come before the one ahead of them is answered wait their turn, unread
    ones on the socket. What uvicorn wants of a protocol: this constructor, `shutdown`, and to find in
    `server_state` the open connections and what runs for them.
    """

    def __init__(self, config: Any, server_state: Any, app_state: object, _loop: object = None) -> None:
        self.app: App = config.loaded_app
        self.loop = asyncio.get_running_loop()
        self.state = server_state
        self.write_paused = False
        self._keep_alive: float = config.timeout_keep_alive
        self._arena: memoryview = self.app.arena
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()  # the first is being answered
        self._incoming: Exchange | None = None  # whose body is not whole yet
        self._head = 0  # bytes of the request head so far
        self._deaf = False  # nothing that comes is a request any more
        self._refusal = ""  # for what came behind the requests that still run
        self._read_paused = False
        self._drained: asyncio.Future[None] | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        self.state.connections.add(self)
        self._idle_since = self.loop.time()
        self._timer = self.loop.call_later(self._keep_alive, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arena

    def buffer_updated(self, size: int) -> None:
        if self._deaf:
            return
        if self._incoming is None:
            self._head += size
            if self._head > LARGEST_HEAD:
                return self._refuse("The request's head is too large.")
        try:
            self._parser.feed_data(self._arena[:size])
        except httptools.HttpParserUpgrade:
            self._deaf = True  # the request is served as if it had not asked; what follows is not HTTP
            if self._exchanges:
                self._exchanges[-1].keep_alive = False
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse("Invalid HTTP request received.")

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections.discard(self)
        self._timer.cancel()
        self._deaf = True
        if self._exchanges:
            self._exchanges[0].leave()
            self._exchanges.clear()
        self.resume_writing()
        del self._parser  # it refers back to this connection

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drained(self) -> None:
        """Until the client has read most of what was written, or is gone. One that takes nothing at all for
        the idle time-out is cut off, and has left."""
        drained = self._drained = self.loop.create_future()
        patience = max(self.app.settings.idle_timeout, LEAST_PATIENCE)
        while not drained.done():
            waiting = self._transport.get_write_buffer_size()
            await asyncio.wait((drained,), timeout=patience)
            if not drained.done() and self._transport.get_write_buffer_size() >= waiting:
                self._transport.abort()  # connection_lost ends the wait, and the request
                await drained

    def shutdown(self) -> None:
        """The server is going down: what runs has its time to end (App.drain), and nothing follows it."""
        self.app.drain()
        if self._exchanges:
            self._exchanges[0].keep_alive = False
        else:
            self._transport.close()

    def _look(self) -> None:
        """Whether the client was silent, or stuck in a head, for too long. One timer for many requests."""
        left = self._keep_alive
        if not self._exchanges:
            left += self._idle_since - self.loop.time()
            if left <= 0:
                self._transport.close()
                return
        self._timer = self.loop.call_later(left, self._look)

    # The parser's side

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser, target = self._parser, self._target
        newest = parser.get_http_version() == "1.1"
        if not target.startswith(b"/"):
            target = httptools.parse_url(target).path or b"/"
        path = target.partition(b"?")[0].decode("ascii")
        exchange = Exchange(
            self,
            parser.get_method().decode("ascii"),
            unquote(path) if "%" in path else path,
            tuple(
                [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._fields]
            ),
            keep_alive=newest and parser.should_keep_alive(),
            chunked=newest,
        )
        self._incoming = exchange
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            exchange.start()
        else:
            self.steer()

    def on_body(self, part: bytes) -> None:
        if self._incoming is not None:
            self._incoming.feed(part)
            self.steer()

    def on_message_complete(self) -> None:
        self._head = 0
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            exchange.complete()
            self._deaf |= not exchange.keep_alive

    # The exchange's side

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def steer(self) -> None:
        """Reads on, unless a request waits already or a body piles up."""
        crowded = self._incoming is not None and self._incoming.unwanted > HIGH_WATER
        pause = crowded or len(self._exchanges) > 1
        if pause != self._read_paused and not self._transport.is_closing():
            self._read_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """The last byte of its answer is written."""
        self.state.total_requests += 1
        if self._exchanges and self._exchanges[0] is exchange:
            self._exchanges.popleft()
        if not exchange.keep_alive:
            self._transport.close()
        elif self._exchanges:
            self._exchanges[0].start()
        elif self._refusal:
            self._say(self._refusal)
        else:
            self._idle_since = self.loop.time()
        if self._read_paused:
            self.steer()

    def abort(self) -> None:
        self._transport.abort()

    def _refuse(self, message: str) -> None:
        """Behind the answers to what was good, the last of which may turn out to be half a request."""
        self._deaf = True
        if self._incoming is not None and self._incoming in self._exchanges:
            self._exchanges.pop().leave()
        if self._exchanges:
            self._refusal = message
        else:
            self._say(message)

    def _say(self, message: str) -> None:
        body = jsonio.dumps(errors.body(InvalidRequest(message), "openai"))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        self._transport.close()
