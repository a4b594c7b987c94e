"""HTTP/1.1 of the home server: uvicorn opens and closes connections, requests go straight to the gateway."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools

from kimi_gateway.edge.home.asgi import LEAST_PATIENCE, App
from kimi_gateway.edge.home.connections import accept
from kimi_gateway.edge.home.exchange import Exchange
from kimi_gateway.edge.home.heads import bad_request, pairs
from kimi_gateway.http import Headers

LARGEST_HEAD = 64 * 1024  # bytes of one request's line and headers, or of the data between its chunks
UNASKED = 16 * 1024  # bytes of one read if no more of a body is missing; they may have to wait
MOST_FIELDS = 1000  # in a head, plus at most those of one step
STEP = 4096  # bytes that the parser gets at a time if their content is unknown
STEPS = 16  # such steps before other tasks get a turn
END = b"\r\n\r\n"  # end of a head, and of a body in chunks
LINGER = 5.0  # seconds for the client to read an answer that came before its body was sent
LINGER_BYTES = 1024 * 1024  # bytes of such a body to discard; more with a key
LINGER_KEYED = 32 * LINGER_BYTES
LEAST_READ = 1024  # bytes a second that a client must read of pending data
LOOK = 10.0  # seconds between checks of that
HIGH_WATER = 64 * 1024  # bytes of a body that nobody has asked for; above it reading pauses


class Protocol(asyncio.BufferedProtocol):
    """One connection. Requests wait until the one before is answered; further ones stay unread on the socket.

    uvicorn requires this constructor and `shutdown`, and `server_state` with connections and running tasks.
    """

    def __init__(self, config: Any, server_state: Any, app_state: object, _loop: object = None) -> None:
        self.app: App = config.loaded_app
        self.loop = asyncio.get_running_loop()
        self.state = server_state
        self.write_paused = False
        self._keep_alive: float = config.timeout_keep_alive
        self._arena: memoryview = self.app.arena
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: list[Exchange] = []  # the first is being answered; seldom more than two
        self._incoming: Exchange | None = None  # its body is incomplete
        self._fresh: Exchange | None = None  # runs when this read is parsed
        self._head = 0  # bytes of the request head so far
        self._open = False  # the head is incomplete
        self._deaf = False  # incoming bytes are no longer requests
        self._refusal = ""  # for bad input behind requests that still run
        self._read_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._rest = b""  # read and not parsed yet
        self._linger = 0  # bytes that may still come behind the last answer
        self._known = False  # a valid key was shown
        self._written = 0  # bytes
        self._taken: int | None = None  # bytes that the client had read at the last check

    # Transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.client = accept(transport)
        self._proxied = self.client in self.app.proxies
        self.state.connections.add(self)
        self._idle_since = self.loop.time()
        self._timer = self.loop.call_later(self._keep_alive, self._look)
        self.app.connections.add(self, "" if self._proxied else self.client)

    def get_buffer(self, sizehint: int) -> memoryview:
        missing = 0 if self._incoming is None else self._incoming.missing
        wanted = missing is None or missing > UNASKED
        return self._arena[: self.app.connections.share() if wanted else UNASKED]

    def buffer_updated(self, size: int) -> None:
        if not self._deaf:
            self._parse(self._arena[:size])
        elif self._linger:
            self._linger -= size
            if self._linger <= 0:
                self.abort()

    def _parse(self, data: memoryview) -> None:
        """Parse in steps, so that one read makes at most one waiting request and takes little time. The rest
        is parsed later."""
        at, size, steps = 0, len(data), 0
        while at < size and not self._deaf:
            if steps == STEPS or self._blocked:
                self._rest = bytes(data[at:])
                self.steer()
                break
            missing = self._incoming.missing if self._incoming is not None else None
            if missing:
                step = data[at : at + missing]
            else:
                step = data[at : at + STEP]
                end = bytes(step).find(END) + len(END)
                if end >= len(END):
                    step = step[:end]
                steps += 1
            self._feed(step)
            at += len(step)
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.run()

    def _go_on(self) -> None:
        rest, self._rest = self._rest, b""
        if rest and not self._deaf:
            self._parse(memoryview(rest))
        self.steer()

    def _feed(self, step: memoryview) -> None:
        incoming = self._incoming
        before = incoming.size if incoming is not None else 0
        try:
            self._parser.feed_data(step)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # the request is served without the upgrade; what follows is not HTTP
            if self._exchanges:
                self._exchanges[-1].keep_alive = False
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse("Invalid HTTP request received.")
        if self._incoming is None:
            self._head += 0 if incoming else len(step)  # else it was the end of a body
            if self._open and self._head > UNASKED:
                self.app.connections.head(self, self._head)
        elif self._incoming.size > before:
            self._head = 0
            return
        else:  # trailers, or extensions beside the sizes of chunks
            self._head += len(step)
            self._fields.clear()
        if (self._head > LARGEST_HEAD or len(self._fields) > MOST_FIELDS) and not self._deaf:
            self._refuse("The request's head is too large.")

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections.discard(self)
        self.app.connections.remove(self)
        self._timer.cancel()
        self._deaf = True
        self._rest = b""
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
        if not self._deaf or self._exchanges or self._refusal:
            self._next()

    async def drained(self) -> None:
        """Wait until the client has read most of the data or is gone. A client that takes nothing for the
        idle time-out is disconnected; the socket takes half of UNSENT at a time."""
        drained = self._drained = self.loop.create_future()
        patience = max(self.app.settings.idle_timeout, LEAST_PATIENCE)
        while not drained.done():
            waiting = self._transport.get_write_buffer_size()
            await asyncio.wait((drained,), timeout=patience)
            if not drained.done() and self._transport.get_write_buffer_size() >= waiting:
                self._transport.abort()  # connection_lost ends the wait and the request
                await drained

    def shutdown(self) -> None:
        """The server shuts down: running requests may end (App.drain), and no others follow."""
        self.app.drain()
        if self._exchanges and self._exchanges[0].started:
            self._exchanges[0].stop()
        else:
            self._close()

    def _look(self) -> None:
        """Close the connection if the client was silent, stuck in a head, or read nothing of its answer for
        too long. One timer serves many requests."""
        left = self._keep_alive
        if not self._exchanges or not self._exchanges[0].started:
            unread = self._transport.get_write_buffer_size()
            taken = self._written - unread
            left = LOOK if unread else left + self._idle_since - self.loop.time()
            if left <= 0 or (unread and self._taken is not None and taken < self._taken + LEAST_READ * LOOK):
                return self.abort()
            self._taken = taken if unread else None
        else:
            self._taken = None
        self._timer = self.loop.call_later(left, self._look)

    # Parser callbacks

    def on_message_begin(self) -> None:
        self._head, self._open, self._target = 0, True, b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._open = False
        if self._head > UNASKED:
            self.app.connections.head(self, 0)
        parser = self._parser
        newest = (version := parser.get_http_version()) == "1.1"
        if not newest and version != "1.0":
            raise ValueError(version)
        method, fields = parser.get_method().decode("ascii"), pairs(self._fields)
        keep_alive = newest and parser.should_keep_alive()
        exchange = Exchange(self, method, self._target, fields, keep_alive, chunked=newest)
        self._fields.clear()
        self._incoming = exchange
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1 and not self.write_paused:
            exchange.start()
            self._fresh = exchange
        else:
            self.steer()

    def on_body(self, part: bytes) -> None:
        if self._incoming is not None:
            self._incoming.feed(part)
            if self._incoming.size > HIGH_WATER or self._read_paused:
                self.steer()

    def on_message_complete(self) -> None:
        self._head = 0
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            exchange.complete()
            self._deaf |= not exchange.keep_alive

    # Methods for the exchange

    def write(self, data: bytes | memoryview) -> None:
        if not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    @property
    def _blocked(self) -> bool:
        """Whether a request waits already, or an unread body grows."""
        exchanges = self._exchanges
        if len(exchanges) > 1 or (exchanges and not exchanges[0].started):
            return True
        return self._incoming is not None and self._incoming.unwanted > HIGH_WATER

    def steer(self) -> None:
        """Pause or resume reading; bytes that were already read come first."""
        blocked = self._blocked
        pause = (blocked or bool(self._rest)) and not self._deaf
        if self._rest and not blocked:
            self.loop.call_soon(self._go_on)
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
            del self._exchanges[0]
        self._idle_since = self.loop.time()
        if not exchange.keep_alive:
            self._end(exchange.whole)
        elif self.write_paused:
            self._watch()  # the next one starts when most of this has left
        else:
            self._next()

    def _next(self) -> None:
        if self._exchanges:
            if not self._exchanges[0].started:
                self._exchanges[0].start()
                self.loop.call_soon(self._exchanges[0].run)
        elif self._refusal:
            self._say(self._refusal)
        if self._read_paused:
            self.steer()

    @property
    def idle(self) -> bool:
        return not self._exchanges or self._exchanges[0].paused

    def known(self) -> None:
        """A valid key was shown."""
        if not self._known:
            self._known = True
            self.app.connections.know(self)

    def client_of(self, headers: Headers) -> str:
        """The client's address. Behind a proxy each request counts for itself."""
        if not self._proxied:
            return self.client
        client = self.app.proxies.client(self.client, headers.all("x-forwarded-for"))
        self._known = False
        self.app.connections.add(self, client)
        return client

    def abort(self) -> None:
        self._transport.abort()

    def _end(self, whole: bool) -> None:
        """Close behind the last answer. A client that still sends could not read the answer if the connection
        closed at once, so its bytes are discarded for a while."""
        self._deaf = True
        if whole or not self._transport.can_write_eof() or self._transport.is_closing():
            return self._close()
        self._rest = b""
        self._linger = LINGER_KEYED if self._known else LINGER_BYTES
        self._transport.write_eof()
        self.steer()
        self._timer.cancel()
        self._timer = self.loop.call_later(LINGER, self.abort)

    def _close(self) -> None:
        """Close when the data has left, within the client's time."""
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._watch()

    def _watch(self) -> None:
        self._taken = None
        self._timer.cancel()
        self._timer = self.loop.call_later(0, self._look)

    def _refuse(self, message: str) -> None:
        """Refuse bad input, after the answers to earlier requests; the last of these may be incomplete."""
        self._deaf = True
        if self._incoming is not None and self._incoming in self._exchanges:
            self._exchanges.pop().leave()
        if self._exchanges:
            self._refusal = message
        else:
            self._say(message)

    def _say(self, message: str) -> None:
        self.write(bad_request(message))
        self._refusal = ""
        self._end(whole=False)
