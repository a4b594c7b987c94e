"""One HTTP/1.1 client connection. It writes one request at a time and parses the answer as it arrives.

It adds what the parser does not decide: limits, framing, and whether another request may reuse the
connection.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from kimi_gateway.net.http import ConnectionLost, NetError, TimedOut
from kimi_gateway.net.mailbox import Wakeup

LONGEST_HEAD = 64 * 1024  # bytes, interim answers included
MOST_FIELDS = 256
HIGH_WATER = 256 * 1024  # bytes received and not yet taken; above it reading pauses
JOINED = 64 * 1024  # bytes of a body; up to this size one copy is cheaper than a second write

# Phases: idle, waiting for the head, reading the body, complete, broken. Plain integers, because reading an
# Enum member costs a lookup.
IDLE, HEAD, BODY, WHOLE, BROKEN = range(5)


class Unreadable(Exception):
    """Raised in callbacks to stop the parser."""


class Connection(asyncio.BufferedProtocol):
    """Call `send`, `answered`, then `take` and `arrival` in turn, and finally `release`.

    `arena` is the read buffer. Each read is parsed at once, so all connections of a loop share it; `share` is
    the size of the next read. `gone` is called once, when the socket is closed.
    """

    def __init__(
        self,
        arena: memoryview,
        gone: Callable[[Connection], None],
        share: Callable[[], int] | None = None,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._arena = arena
        self._share = share
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._arrived = Wakeup(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._within, self._answer_by = 0.0, math.inf  # time of the loop by which the head must be here
        self._room: asyncio.Future[None] | None = None  # done when a streamed body may go on
        self._full = False
        self._error: NetError | None = None
        self._phase = IDLE
        self._received = 0  # bytes of the answer's head
        self._held = 0  # bytes received since the last `take`
        self._bare = self._until_close = self._reusable = self._paused = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # a parser callback without a Python frame for each chunk
        self._parser = HttpResponseParser(self)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unheard(self) -> bool:
        """Whether no byte of an answer has arrived."""
        return not self._received

    def send(self, method: str, head: bytes, body: bytes) -> bool:
        """Write a request. False if the connection was already closed and nothing was sent."""
        transport = self._transport
        if transport is None or self._phase != IDLE or transport.is_closing():
            return False
        self._phase = HEAD
        self._answer_by = math.inf  # a streamed body comes first
        self._received = self._held = 0
        self._fields.clear()
        self._bare = method == "HEAD"
        split = len(body) > JOINED
        transport.write(head if split else head + body)
        # asyncio writes to the socket at once. If this write closes the transport, nothing was sent.
        if transport.is_closing():
            self._phase = BROKEN
            return False
        if split:
            transport.write(memoryview(body))  # a view, so that asyncio cuts off the sent part without a copy
        return True

    async def sent(self, data: bytes) -> bool:
        """Write a part of a streamed body, and wait until most of it has left. False if the server did not
        want it: it has answered, or the connection is lost."""
        transport = self._transport
        if transport is None or self._phase != HEAD or transport.is_closing():
            return False
        transport.write(memoryview(data))
        while self._full and self._phase == HEAD:
            self._room = self._loop.create_future()
            await self._room
        return self._phase == HEAD

    def spoil(self) -> None:
        """The request is incomplete, so no other one may follow on this connection."""
        self._reusable = False

    async def answered(self, within: float) -> None:
        """Wait for `status` and `headers`, at most `within` seconds. Raises NetError."""
        if self._phase == HEAD:
            self._answer_within(within)
        while self._phase == HEAD:
            await self.arrival()
        if self._phase == BROKEN and self._error is not None:
            raise self._error

    def _answer_within(self, within: float) -> None:
        """One timer serves many requests: a later deadline is only noted, and the timer finds it when it
        fires."""
        self._within, self._answer_by = within, self._loop.time() + within
        if self._timer is not None and self._timer.when() > self._answer_by:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._answer_by, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._phase != HEAD or self._answer_by == math.inf:
            return
        if self._loop.time() >= self._answer_by:
            self._break(TimedOut(f"no answer within {self._within:g} s"))
        else:
            self._timer = self._loop.call_at(self._answer_by, self._look)

    def take(self) -> bytes | None:
        """Take the bytes received since the last call: b"" if there are none yet, None at the end. Raises
        NetError if the answer is broken."""
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._held = 0
            if self._paused:
                self._resume()
            return data
        if self._phase == BODY:
            return b""
        if self._phase == BROKEN and self._error is not None:
            raise self._error
        return None

    def arrival(self) -> Wakeup:
        """Await it; it ends when `take` has something new."""
        if self._arrived.taken and not self._arrived.awaited:
            self._arrived = Wakeup(self._loop)  # the other one's task was left behind
        return self._arrived

    async def rest(self, seconds: float) -> None:
        """Read nothing for a moment, unless there is something already, so that the next read brings more."""
        if self._phase == BODY and not self._held and not self._paused:
            self._pause()
            await asyncio.sleep(seconds)
            self._resume()

    def release(self) -> bool:
        """End the request. True if another request may reuse the connection; otherwise it is closed."""
        transport = self._transport
        if (
            transport is None
            or self._phase != WHOLE
            or not self._reusable
            or self._paused
            or transport.is_closing()
            or transport.get_write_buffer_size()  # answered before the request was read
        ):
            self.abort()
            return False
        self._parts.clear()
        self._phase = IDLE
        return True

    def abort(self) -> None:
        self._break(ConnectionLost("the connection was closed on our side"))

    # Transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._go_on()

    def _go_on(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arena if self._share is None else self._arena[: self._share()]

    def buffer_updated(self, size: int) -> None:
        phase = self._phase
        if phase == HEAD:
            # llhttp skips line ends before an answer and also accepts RTSP/ and ICE/
            first = not self._received
            self._received += size
            if first and self._arena[0] != ord("H"):
                return self._break(ConnectionLost("the answer cannot be read as HTTP"))
        elif phase != BODY:
            return self.abort()  # unexpected bytes would become the next request's answer
        try:
            self._parser.feed_data(self._arena[:size])
        except HttpParserError as exc:
            return self._break(ConnectionLost(f"the answer cannot be read as HTTP ({type(exc).__name__})"))
        self._held += size
        if self._phase == HEAD:
            if self._received > LONGEST_HEAD:
                self._break(ConnectionLost("the answer's head is too large"))
        elif self._parts or self._phase != phase:
            # Last, because the task that reads may do anything with this connection. It takes what it wants.
            if self._room is not None:
                self._go_on()
            self._arrived.give()
            if self._held > HIGH_WATER and self._phase == BODY:
                self._pause()
        elif self._held > HIGH_WATER:
            self._break(ConnectionLost("the answer's framing is too large"))

    def eof_received(self) -> None:
        self._end(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        del self._parser  # it refers back to this connection
        self._gone(self)

    def _end(self, exc: Exception | None) -> None:
        if self._phase == BODY and self._until_close and exc is None:
            self._phase = WHOLE
            self._reusable = False
            self._wake()
        elif self._phase != WHOLE:
            where = "in the middle of" if self._phase == BODY else "before"
            self._break(
                ConnectionLost(f"lost {where} the answer ({type(exc).__name__ if exc else 'closed'})")
            )

    def _break(self, error: NetError) -> None:
        """Close at once. A complete answer stays complete, and the first error is kept."""
        self._reusable = False
        if self._phase < WHOLE:
            self._phase = BROKEN
            self._error = error
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        self._go_on()
        self._arrived.give_soon()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    # Parser callbacks, besides `on_body`

    def on_message_begin(self) -> None:
        if self._phase == WHOLE:
            raise Unreadable  # a second answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200 and status != 101:
            self._fields.clear()
            return
        headers = self._joined()
        coding = headers.get("transfer-encoding")
        if (
            status == 101
            or parser.get_http_version() not in ("1.1", "1.0")
            or self._parts  # from an interim answer
            or (coding is not None and coding.lower() != "chunked")
        ):
            raise Unreadable
        self._until_close = coding is None and "content-length" not in headers
        self._reusable = parser.should_keep_alive()
        self.status, self.headers = status, headers
        self._phase = BODY
        if (
            self._bare
        ):  # the parser does not know that this is HEAD, so the answer and the connection end here
            self._phase = WHOLE
            raise Unreadable

    def on_message_complete(self) -> None:
        if self._phase == BODY:
            self._phase = WHOLE

    def _joined(self) -> dict[str, str]:
        if len(self._fields) > MOST_FIELDS or sum(len(n) + len(v) for n, v in self._fields) > LONGEST_HEAD:
            raise Unreadable
        headers: dict[str, str] = {}
        for name, value in self._fields:
            key = name.decode("ascii").lower()
            text = value.decode("latin-1").rstrip(" \t")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._fields.clear()
        return headers
