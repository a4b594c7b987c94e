"""ASGI to `handle` and back, for uvicorn at home. FastAPI serves the docs and is loaded when they are
read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from kimi_gateway.app import Running, start
from kimi_gateway.edge.body import Pace, Stopwatch, check_length, refused_head, too_large, too_slow
from kimi_gateway.edge.home.bodies import Bodies, Body
from kimi_gateway.edge.home.connections import ARENA, Connections, Proxies
from kimi_gateway.edge.home.pacing import Pacing
from kimi_gateway.edge.router import Router, request_id
from kimi_gateway.edge.routes import routes
from kimi_gateway.errors import GatewayError
from kimi_gateway.http import Headers, Query, Request, Response
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.edge.home.scrape import Scrape
    from kimi_gateway.edge.home.telemetry import Telemetry

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
DOCS = ("/docs", "/redoc", "/openapi.json")
FILES = ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js")  # files of the page /docs
PAGES = (*DOCS, *FILES)
CLOSING = (("connection", "close"),)  # of an answer before the body is read
LEAST_PATIENCE = 2.0  # seconds for a client that reads nothing, even if the idle time-out is shorter


class App:
    """The gateway as an ASGI application. It starts and stops with the server's lifespan."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self.running: Running | None = None
        self.telemetry: Telemetry | None = None
        self.arena = memoryview(bytearray(ARENA))  # the read buffer of all connections of the loop
        self.connections = Connections(bound(settings.connections), settings.keyless_per_address)
        self.proxies = Proxies(settings.trusted_proxies)
        self.bodies = Bodies(settings.body_memory)
        self.pace = Pacing()
        self._router: Router  # set by `start`
        self._docs: Any = None
        self._read: dict[tuple[str, str], Response] = {}  # docs pages by method and path
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def start(self) -> None:
        if self.settings.telemetry:
            from kimi_gateway.edge.home.telemetry import Telemetry  # few gateways are watched

            self.telemetry = Telemetry(self.settings, self._clock)
            self.telemetry.begin()
        try:
            self.running = await start(self.settings, clock=self._clock)
            self._router = Router(routes(self.running.gateway, self.running.endpoints), PAGES)
            if self.telemetry is not None:
                await self.telemetry.start(self.running)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
        if self.running is not None:
            await self.running.stop()
        if self.telemetry is not None:
            await self.telemetry.stop()

    @property
    def scrape(self) -> Scrape | None:
        return None if self.telemetry is None else self.telemetry.scrape

    def drain(self) -> None:
        """The server shuts down: running requests may finish for a while, then they get an error."""
        if self._draining is None and self.running is not None:
            self._draining = asyncio.create_task(self.running.gateway.drain(self.settings.drain))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except Exception as exc:
                    await send({"type": "lifespan.startup.failed", "message": str(exc)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer a request for the server that speaks HTTP itself."""
        if request.path in PAGES and request.method in ("GET", "HEAD"):
            return self._page(request)
        return self._router.handle(request)

    def refuse(self, request: Request, error: GatewayError) -> Response:
        return self._router.refuse(request, error)

    async def _page(self, request: Request) -> Response:
        """A docs page from the ASGI application. Each page is made once; callers get a copy."""
        asked = (request.method, request.path)
        if asked not in self._read:
            self._read[asked] = await self._made(request)
        page = self._read[asked]
        return Response(page.status, list(page.headers), page.body)

    async def _made(self, request: Request) -> Response:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "query_string": b"",
            "headers": [],
        }
        documentation = await self._documentation()
        await documentation(scope, receive, send)
        start, *pieces = sent
        headers = list(map(_decoded, start["headers"]))
        if request.method == "HEAD":
            return Response(start["status"], headers)
        told = [(name, value) for name, value in headers if name != "content-length"]
        return Response(start["status"], told, b"".join([piece.get("body", b"") for piece in pieces]))

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] in PAGES and scope["method"] in ("GET", "HEAD"):
            documentation = await self._documentation()
            await documentation(scope, receive, send)
        else:
            await self._gateway(scope, receive, send)

    async def _gateway(self, scope: Message, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send, self)
        await exchange.serve(self._router)

    async def _documentation(self) -> Any:
        if self._docs is None:
            self._docs = await asyncio.to_thread(self._loaded)
        return self._docs

    def _loaded(self) -> Any:
        """Load FastAPI in a thread, because that takes longer than everything else."""
        from kimi_gateway.edge.home.docs import with_docs

        return with_docs(self._gateway, self._router.table)


class _Exchange:
    """One request and its response on one ASGI connection."""

    def __init__(self, scope: Message, receive: Receive, send: Send, app: App) -> None:
        settings, proxies = app.settings, app.proxies
        self._bodies = app.bodies
        self._held: Body | None = None
        self._clock: asyncio.Timeout | None = None  # of the wait for more of the body
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._left = False
        self._patience = max(settings.idle_timeout, LEAST_PATIENCE)
        self._look: asyncio.TimerHandle | None = None
        self._sending = False
        self._sent = 0  # pieces that the server accepted
        headers = Headers(tuple(map(_decoded, scope["headers"])))
        self._refusal = refused_head(headers, scope.get("http_version") == "1.1")
        peer = str((scope.get("client") or ("",))[0])
        self._request = Request(
            method=scope["method"],
            path=scope["path"],
            headers=headers,
            id=request_id(headers.get("x-request-id")),
            body=self._body,
            client=proxies.client(peer, headers.all("x-forwarded-for")) if peer in proxies else peer,
            stream=self._stream,
            query=Query(scope["query_string"].decode("utf-8", "replace")),
            limit=settings.body_limit,
        )

    async def serve(self, router: Router) -> None:
        response: Response | None = None
        try:
            if self._refusal is not None:
                response = router.refuse(self._request, self._refusal)
            else:
                response = await router.handle(self._request)
            await self._answer(response)
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            self._stop_watching()
            if self._held is not None:
                self._held.end()
            if self._look is not None:
                self._look.cancel()
            if response is not None:
                await asyncio.shield(asyncio.ensure_future(response.finish()))

    async def _answer(self, response: Response) -> None:
        headers, body = response.headers, response.body
        if isinstance(body, bytes):
            self._stop_watching()
            if response.status not in (204, 304) and self._request.method != "HEAD":
                headers = [*headers, ("content-length", str(len(body)))]
            await self._start(response.status, headers)
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._start(response.status, headers)
        self._end_if_stuck(-1)
        async for piece in body:
            self._sending = True
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sending = False
            self._sent += 1
        self._stop_watching()
        self._sending = True
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        await self._send(
            {"type": "http.response.start", "status": status, "headers": list(map(_encoded, headers))}
        )

    async def _body(self) -> bytes:
        held = self._held = Body(self._bodies, self._request, self._look_up)
        pieces = list[bytes]()
        async for piece in self._stream():
            held.grow(len(piece))
            held.check(CLOSING)
            pieces.append(piece)
        held.arriving = False
        return b"".join(pieces)

    def _look_up(self) -> None:
        """The body has to go: do not wait for more of it."""
        if self._clock is not None:
            self._clock.reschedule(asyncio.get_running_loop().time())

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces. After the last one the client is watched, and leaving cancels the request."""
        limit = self._request.limit
        check_length(self._request.headers, limit)
        clock = Stopwatch(asyncio.get_running_loop().time)
        pace, size = Pace(clock.time(), 0), 0
        while True:
            message = await self._next(pace, clock, size)
            if message["type"] == "http.disconnect":
                self._left = True
                raise asyncio.CancelledError
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            if piece:
                with clock.stopped():
                    yield piece
            if not message.get("more_body", False):
                break
        self._watch = asyncio.create_task(self._cancel_when_gone())

    async def _next(self, pace: Pace, clock: Stopwatch, size: int) -> Message:
        """The next message. Raises BodyTooSlow; the server then closes the connection."""
        while not pace.late(clock.time(), size):
            try:
                async with asyncio.timeout_at(clock.real(pace.due)) as self._clock:
                    return await self._receive()
            except TimeoutError:
                if self._held is not None:
                    self._held.check(CLOSING)
            finally:
                self._clock = None
        raise too_slow(CLOSING)

    async def _cancel_when_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()

    def _end_if_stuck(self, before: int) -> None:
        """Cancel the request if the client took nothing between two checks. One timer serves many pieces."""
        if self._sending and self._sent == before and self._task is not None:
            self._left = True
            self._task.cancel()
        else:
            now = self._sent if self._sending else -1
            self._look = asyncio.get_running_loop().call_later(self._patience, self._end_if_stuck, now)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


def bound(most: int) -> int:
    """At most a third of the descriptors: each request may have one upstream, and the store needs some."""
    limit = descriptors()
    return most if limit is None else min(most, max(limit // 3, 1))


def descriptors() -> int | None:
    """The number of files and sockets that the process may open; None if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _decoded(pair: tuple[bytes, bytes]) -> tuple[str, str]:
    name, value = pair
    return name.decode("latin-1"), value.decode("latin-1")


def _encoded(pair: tuple[str, str]) -> tuple[bytes, bytes]:
    name, value = pair
    return name.encode("latin-1"), value.encode("latin-1")
