"""One request and its response on a connection of the home server."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from kimi_gateway.edge.body import (
    Pace,
    Stopwatch,
    check_length,
    refused_chunks,
    refused_head,
    too_fine,
    too_large,
    too_slow,
)
from kimi_gateway.edge.home.bodies import SMALL as UNCOUNTED
from kimi_gateway.edge.home.bodies import Body, joined
from kimi_gateway.edge.home.heads import length_of, split
from kimi_gateway.edge.router import request_id
from kimi_gateway.errors import ShuttingDown
from kimi_gateway.flow.apart import apart
from kimi_gateway.http import Headers, Pairs, Query, Request, Response
from kimi_gateway.net.mailbox import begin
from kimi_gateway.net.sse import LARGE, PAUSE
from kimi_gateway.observe import log

if TYPE_CHECKING:
    from kimi_gateway.edge.home.protocol import Protocol

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
SMALL = 64 * 1024  # bytes of a refused body that are read to keep the connection
MANY = 1024  # tiny pieces of a body before they are joined; they cost far more than their bytes
TINY = 4096  # bytes of a piece, on average
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """Call `start` and `run`, feed the body, and `leave` when the client is gone or uvicorn gives up.

    `keep_alive`: another request may follow. `chunked`: the client reads chunks; otherwise a stream ends with
    its connection. An HTTP/1.1 request without Host is refused.
    """

    def __init__(
        self,
        connection: Protocol,
        method: str,
        target: bytes,
        headers: Pairs,
        keep_alive: bool,
        chunked: bool,
    ) -> None:
        path, query = split(target)
        fields = Headers(headers)
        self._refusal = refused_head(fields, chunked)
        self.keep_alive = keep_alive
        self._connection, self._chunked = connection, chunked
        self._parts: list[bytes] = []
        self._joined = self._waiting = 0  # parts that were joined, and bytes of all parts
        self._size = self._pieces = 0
        self.whole = self._opened = self._wanted = self._over = self._left = self._stopped = False
        self._held: Body | None = None  # counts the bytes of a body that is read whole
        self._more: asyncio.Future[None] | None = None
        self._pause: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.started = False  # it may run
        self._length = length_of(fields)
        named, client = request_id(fields.get("x-request-id")), connection.client_of(fields)
        of_body = (self._body, client, self._stream, Query(query), connection.app.settings.body_limit)
        self._request = Request(method, path, fields, named, *of_body)

    def start(self) -> None:
        """It is this request's turn; a callback of the loop calls `run` soon."""
        self.started = True
        self._connection.state.tasks.add(self)

    def run(self) -> None:
        """Work in a task, up to its first wait at once."""
        if self._left:
            return self._done()
        self._task = begin(self._connection.loop, self._serve())
        if self._left:
            self._task.cancel()

    def _done(self) -> None:
        self._connection.state.tasks.discard(self)
        del self._request, self._held  # both refer back to this exchange, and hold all that was asked

    def cancel(self, msg: object = None) -> None:
        """Called by uvicorn if the request runs too long during shutdown."""
        self.leave()

    def leave(self) -> None:
        """Cancel the request, unless only its last step is left, which must not be disturbed."""
        if self.started and not self._left and not self._over:
            self._left = True
            if self._task is not None:
                self._task.cancel()

    def stop(self) -> None:
        """The server shuts down: do not wait for an incomplete body."""
        self.keep_alive = False
        self._stopped = True
        self._wake()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    # The request

    @property
    def missing(self) -> int | None:
        """Bytes of the body that are missing; None if only its end can tell."""
        return None if self._length is None else self._length - self._size

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return self._size

    @property
    def _too_fine(self) -> bool:
        return self._length is None and too_fine(self._pieces, self._size)

    @property
    def key_shown(self) -> bool:
        """Whether a valid key came with the request, as far as known."""
        return self._request.record.key is not None

    @property
    def paused(self) -> bool:
        """Whether its answer waits."""
        return self._pause is not None

    @property
    def unwanted(self) -> int:
        """Bytes of the body that nobody has asked for yet."""
        return 0 if self._wanted or self._over else self._waiting

    def feed(self, part: bytes) -> None:
        if self._over:
            return  # answered without the rest
        self._size += len(part)
        self._pieces += 1
        if not self._opened or self._size <= self._request.limit:
            if self._held is not None:
                self._held.grow(len(part))
                if self._held.gone:
                    return
            self._waiting += len(part)
            self._parts.append(part)
            if len(self._parts) - self._joined >= MANY and self._size < self._pieces * TINY:
                self._parts[self._joined :] = [b"".join(self._parts[self._joined :])]
                self._joined += 1
        self._wake()

    def complete(self) -> None:
        self.whole = True
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _open(self) -> None:
        """The body is asked for, so its limit is known. Raises BodyTooLarge."""
        request = self._request
        check_length(request.headers, request.limit)
        if self.key_shown:
            self._connection.known()
        self._opened = True
        # HTTP/1.0 knows no interim answers (RFC 9110, 10.1.1), and other expectations may be ignored.
        if not self.whole and self._chunked and request.headers.get("expect").lower() == "100-continue":
            self._connection.write(CONTINUE)

    def _taken(self) -> list[bytes]:
        """The pieces so far. Raises BodyTooLarge, and InvalidRequest for too many chunks."""
        if self._size > self._request.limit:
            raise too_large(self._request.limit)
        if self._too_fine:
            raise refused_chunks()
        parts, self._parts = self._parts, []
        self._joined = self._waiting = 0
        return parts

    async def _body(self) -> bytes:
        self._open()
        self._wanted = True
        packed = self._request.headers.get("content-encoding")  # what it becomes is counted as well
        if self.whole and self._size <= UNCOUNTED and not packed:
            return joined(self._taken())
        held = self._held = Body(self._connection.app.bodies, self._request, self._drop)
        held.grow(self._size)
        if not self.whole:
            clock = Stopwatch(self._connection.loop.time)
            self._connection.steer()
            await self._arrival(Pace(clock.time(), self._size), clock, math.inf)
        held.arriving = False
        held.check()
        return await apart(self._size, partial(joined, self._taken()))

    def _drop(self) -> None:
        """The bytes so far have to go."""
        self._parts.clear()
        self._wake()

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        self._open()
        clock = Stopwatch(self._connection.loop.time)
        pace = Pace(clock.time(), self._size)
        while True:
            if not (self._waiting or self.whole):
                await self._arrival(pace, clock, 1)
            if piece := joined(self._taken()):
                self._connection.steer()
                with clock.stopped():
                    yield piece
            elif self.whole:
                return

    async def _arrival(self, pace: Pace, clock: Stopwatch, enough: float) -> None:
        """Wait until the body is complete or too large, or `enough` bytes of it are here. Raises
        BodyTooSlow, ShuttingDown; InvalidRequest for too many chunks."""
        loop, connections = self._connection.loop, self._connection.app.connections
        timer = None
        connections.wait(self._connection, self._request.record.account)
        try:
            while not self.whole and self._waiting < enough and self._size <= self._request.limit:
                if self._held is not None:
                    self._held.check()
                if self._stopped:
                    raise ShuttingDown
                if self._too_fine:
                    raise refused_chunks()
                if pace.late(clock.time(), self._size):
                    self.keep_alive = False
                    raise too_slow()
                if timer is None or timer.when() <= loop.time():
                    timer = loop.call_at(clock.real(pace.due), self._wake)
                self._more = loop.create_future()
                await self._more
        finally:
            connections.go_on(self._connection)
            if timer is not None:
                timer.cancel()

    # The response

    async def _serve(self) -> None:
        response: Response | None = None
        try:
            app = self._connection.app
            if self._refusal is not None:
                response = app.refuse(self._request, self._refusal)
            else:
                response = await app.respond(self._request)
            if response.status >= 400 or not self._request.record.account:
                await self._keep_pace(response.status)
            await self._answer(response)
        except asyncio.CancelledError:
            if not self._left:
                raise
        except Exception:
            log.exception("crash", extra={"fields": {"id": self._request.id}})
            self._connection.abort()
        finally:
            self._over = True
            if self._held is not None:
                self._held.end()
            try:
                if response is not None:
                    await response.finish()
            finally:
                self._done()

    async def _keep_pace(self, status: int) -> None:
        """Wait if this caller asks too often for what costs nothing, unless the server shuts down."""
        loop = self._connection.loop
        wait = self._connection.app.pace.wait(self._request, status, loop.time())
        if wait and not self._stopped:
            self._pause = loop.create_future()
            await asyncio.wait((self._pause,), timeout=wait)
            self._pause = None

    async def _answer(self, response: Response) -> None:
        body, connection = response.body, self._connection
        if not self.whole and not self._worth_waiting():
            self.keep_alive = False
        if self.key_shown:
            connection.known()
        if isinstance(body, bytes):
            connection.write(self._head(response, len(body)) + body)
        else:
            head = self._head(response)
            if response.direct is not None:
                response.direct(self)
            async for piece in body:
                if len(piece) > LARGE:
                    await asyncio.sleep(PAUSE)
                    connection.write(head + (b"%x\r\n" % len(piece) if self._chunked else b""))
                    connection.write(memoryview(piece))  # copying it would cost more than two calls
                    if self._chunked:
                        connection.write(b"\r\n")
                else:
                    self.send(piece, head)
                head = b""
                if connection.write_paused:
                    await connection.drained()
            connection.write(head + b"0\r\n\r\n" if self._chunked else head)
        self._over = True
        self._parts.clear()
        connection.answered(self)

    @property
    def ready(self) -> bool:
        return not self._connection.write_paused

    def send(self, piece: bytes, head: bytes = b"") -> None:
        self._connection.write(head + (b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece))

    def _worth_waiting(self) -> bool:
        """Whether to read the rest of an unused body so that the connection can go on. After `Expect:
        100-continue` the body may never come."""
        missing = self.missing
        asked = not self._opened and self._request.headers.get("expect")
        return missing is not None and missing <= SMALL and not asked

    def _head(self, response: Response, length: int | None = None) -> bytes:
        """The head. Raises ValueError if a header cannot be sent as it is."""
        lines = [_STATUS[response.status], *[f"{name}: {value}" for name, value in response.headers]]
        if _UNSENDABLE.search("".join(lines)):
            raise ValueError("a header holds a control character")
        if length is None:
            if self._chunked:
                lines.append("transfer-encoding: chunked")
            else:
                self.keep_alive = False
        elif response.status not in (204, 304) and self._request.method != "HEAD":
            lines.append(f"content-length: {length}")
        if not self.keep_alive:
            lines.append("connection: close")
        always = [b"%b: %b\r\n" % pair for pair in self._connection.state.default_headers]
        return b"".join([("\r\n".join(lines) + "\r\n").encode("latin-1"), *always, b"\r\n"])
