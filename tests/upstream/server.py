"""The upstream's socket: real HTTP/1.1 on 127.0.0.1 in a thread and loop of its own, so that tests of any
kind, and gateways in other processes, can use it. It records what it sees, and when a peer leaves.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from support.loop_thread import LoopThread
from upstream import batches, files, kimi, messages, search
from upstream.kimi import WINDOWS
from upstream.rules import refusal
from upstream.steps import HANG, RESET, End, Kimi, Part, Reply, Status, Step, length

CHAT = "/v1/chat/completions"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    connection: int  # the how-manieth accepted connection brought it
    query: str = ""
    arrived: float = field(default_factory=time.monotonic)
    answered: threading.Event = field(default_factory=threading.Event)
    closed_early: threading.Event = field(default_factory=threading.Event)
    hangs: threading.Event = field(default_factory=threading.Event)  # all is written that comes for now
    closed_at: float | None = None

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    @cached_property
    def body(self) -> Any:
        """The JSON of the body, None where it is not JSON."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


class Connection(asyncio.Protocol):
    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.buffer = bytearray()
        self.arrival = asyncio.Event()
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.upstream.accepted += 1
        self.number = self.upstream.accepted
        self.upstream.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.arrival.set()

    def eof_received(self) -> None:
        self.left()

    def connection_lost(self, exc: Exception | None) -> None:
        self.left()
        self.upstream.connections.discard(self)

    def left(self) -> None:
        if self.request and not self.gone.is_set() and not self.request.answered.is_set():
            self.request.closed_at = time.monotonic()
            self.request.closed_early.set()
        self.gone.set()
        self.arrival.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def serve(self) -> None:
        try:
            while not self.gone.is_set():
                self.request = request = await self.read_request()
                self.upstream.requests.append(request)
                reply = self.upstream.step_for(request).reply(request)
                if reply.delay:
                    request.hangs.set()
                await self.pause(reply.delay)
                await self.write(reply, request)
                request.answered.set()
                if reply.raw or request.headers.get("connection") == "close":
                    break
        except ConnectionError:
            pass
        finally:  # a step that fails is a cut, which a test sees, not a silence that it waits for
            self.transport.close()

    async def read_request(self) -> Request:
        head = await self.take_until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        method, path, _ = first.split(" ")
        if "100-continue" in headers.get("expect", ""):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(await self.take_until(b"\r\n"), 16):
                pieces.append((await self.take(size + 2))[:-2])
            await self.take_until(b"\r\n")
            body = b"".join(pieces)
        else:
            body = await self.take(int(headers.get("content-length", 0)))
        path, _, query = path.partition("?")
        return Request(method, path, headers, body, self.number, query)

    async def take_until(self, mark: bytes) -> bytes:
        seen = 0
        while (at := self.buffer.find(mark, max(seen - len(mark), 0))) < 0:
            seen = len(self.buffer)
            if self.buffer.startswith(b"\x16"):  # a TLS hello, of which this server knows nothing
                raise ConnectionResetError
            await self.more()
        return (await self.take(at + len(mark)))[:at]

    async def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def more(self) -> None:
        if self.gone.is_set():
            raise ConnectionResetError
        self.arrival.clear()
        await self.arrival.wait()

    async def write(self, reply: Reply, request: Request) -> None:
        parts = reply.parts
        if not reply.raw:
            headers = {"server": "scripted", **reply.headers}
            if reply.chunked:
                headers["transfer-encoding"] = "chunked"
            elif "content-length" not in headers:
                parts = list(parts)
                headers["content-length"] = str(length(parts))
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(f"HTTP/1.1 {reply.status} Scripted\r\n{lines}\r\n".encode("latin-1"))
        for part in parts:
            await self.act(part, request, reply.chunked)
        if reply.chunked:
            self.transport.write(b"0\r\n\r\n")

    async def act(self, part: Part, request: Request, chunked: bool) -> None:
        if self.gone.is_set():
            raise ConnectionResetError
        if part is HANG:
            request.hangs.set()
            self.upstream.at_halt()
            await self.gone.wait()
        elif isinstance(part, End):
            request.answered.set()
            if part is RESET:
                linger = struct.pack("ii", 1, 0)
                self.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                self.transport.abort()
            raise ConnectionResetError
        elif isinstance(part, bytes):
            self.transport.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked and part else part)
            await self.writable.wait()
            if self.transport.is_closing():  # an answer without pauses would never hear of it otherwise
                raise ConnectionResetError
        else:
            await self.pause(part)

    async def pause(self, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), seconds)


class ScriptedUpstream(LoopThread):
    """`strict` (on from the start) refuses what the vendor refuses. `tokens` None: any token will do.
    `at_halt` is called when an answer goes no further."""

    at_halt: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, *, strict: bool = True, tokens: set[str] | None = None) -> None:
        self.strict = strict
        self.tokens = tokens
        self.models = list(WINDOWS)
        self.balance = 49.58
        self.web = search.Web()
        self.files = files.FileStore()
        self.batches = batches.BatchStore(self.files)
        self.requests: list[Request] = []
        self.accepted = 0
        self.connections: set[Connection] = set()
        self._plan: deque[Step] = deque()
        self._always: Step = Kimi()
        self._at: dict[str, Step] = {}
        super().__init__("upstream")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        return len(self.connections)

    @property
    def chats(self) -> list[Request]:
        return [request for request in self.requests if request.path == CHAT]

    @property
    def native(self) -> list[Request]:
        """Those on the vendor's Messages endpoint."""
        return [request for request in self.requests if request.path == messages.PATH]

    @property
    def searches(self) -> list[Request]:
        """Searches and pages that were opened."""
        return [request for request in self.requests if request.path in search.PATHS]

    def plan(self, *steps: Step) -> None:
        """One step for each of the next chat requests, in turn."""
        self._plan.extend(steps)

    def always(self, step: Step) -> None:
        """For every chat request that no plan covers; at first the vendor's right answer, `Kimi()`."""
        self._always = step

    def at(self, path: str, step: Step) -> None:
        """For every request on another path, such as /v1/models."""
        self._at[path] = step

    def forget_at(self, path: str) -> None:
        self._at.pop(path, None)

    def forget(self) -> None:
        """What it was told to do, and its files; not what it saw. The ids go on, so that a deletion left over
        from an earlier test never meets a new file."""
        self._plan.clear()
        self._at.clear()
        self._always = Kimi()
        self.web, self.files = search.Web(), files.FileStore(ids=self.files.ids)
        self.batches = batches.BatchStore(self.files, ids=self.batches.ids)

    def close_idle(self) -> None:
        """Close every connection that carries no request, as a server does after its keep-alive time."""

        async def close() -> None:
            idle = {c for c in self.connections if c.request is None or c.request.answered.is_set()}
            for connection in idle:
                connection.transport.close()
            while idle & self.connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()

    def until(self, true: Callable[[], object], seconds: float = 40.0) -> None:
        """Wait for something that another thread brings about."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.002)

    def step_for(self, request: Request) -> Step:
        """Refusals come before any script: a script acts on requests that the vendor would take."""
        if request.path in self._at:
            return self._at[request.path]
        if self.tokens is not None and request.token not in self.tokens:
            if request.path in search.PATHS:
                return search.refused(401)
            return Status(401, kimi.error("incorrect_api_key_error", "Incorrect API key provided"))
        body = request.body
        match request.method, request.path:
            case _, path if path == files.PATH or path.startswith(files.PATH + "/"):
                return self.files.answer(request)
            case _, path if path == batches.PATH or path.startswith(batches.PATH + "/"):
                return self.batches.answer(request)
            case "POST", path if path in search.PATHS:
                return self.web.answer(path, body)
            case "GET", "/v1/models":
                return Status(200, {"object": "list", "data": [kimi.model_row(m) for m in self.models]})
            case "GET", "/v1/users/me/balance":
                return Status(200, kimi.balance(self.balance))
            case "POST", _ if not isinstance(body, dict):
                return Status(400, kimi.error("invalid_request_error", "Invalid request: not a JSON object"))
            case "POST", "/v1/tokenizers/estimate-token-count":
                return Status(200, {"data": {"total_tokens": kimi.tokens(body.get("messages"))}})
            case "POST", messages.PATH:
                if self.strict and (refused := messages.refusal(request.headers, body, self.models)):
                    return Status(*refused)
                return self._plan.popleft() if self._plan else self._always
            case "POST", "/v1/chat/completions":
                if self.strict and (refused := refusal(body, self.models)):
                    return Status(*refused)
                return self._plan.popleft() if self._plan else self._always
        return Status(404, kimi.error("resource_not_found_error", "The requested resource was not found"))

    async def _run(self) -> None:
        server = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        # No new connections, then until all are down, those still on their way in too: CPython 3.11 drops
        # the socket of a connection whose server is closed between accept and transport.
        self._loop.remove_reader(server.sockets[0].fileno())
        while asyncio.all_tasks() - {asyncio.current_task()} or self.connections:
            for connection in list(self.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
