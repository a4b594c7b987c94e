"""The Lambda Runtime API as the platform speaks it, and a process of ours that asks it for work."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import ROOT
from support.loop_thread import LoopThread

BASE = "/2018-06-01/runtime/"
EXTENSION = "/2020-01-01/extension/"
MARK = bytes(8)

LOOP = "from kimi_gateway.edge.aws.lambda_runtime import main; main()"
_numbers = itertools.count(1)


@dataclass
class Posted:
    """What the runtime posted: chunks with their times of arrival, and what stood around them."""

    path: str
    headers: dict[str, str]
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def prelude(self) -> dict[str, Any]:
        """The head of a streamed answer."""
        head: dict[str, Any] = json.loads(self.body.partition(MARK)[0])
        return head

    @property
    def streamed(self) -> bytes:
        """What a client sees of it."""
        return self.body.partition(MARK)[2]

    @property
    def failure(self) -> dict[str, Any]:
        """The error in the trailers."""
        encoded = self.trailers["lambda-runtime-function-error-body"]
        failure: dict[str, Any] = json.loads(base64.b64decode(encoded))
        return failure


@dataclass
class Invocation:
    """`refused`: the status that its response gets. `posts` are all that came for it, in order of arrival."""

    event: bytes
    id: str
    nonce: str
    seconds: float
    headers: dict[str, str]
    refused: int = 202
    posts: list[Posted] = field(default_factory=list)
    done: Future[Posted] = field(default_factory=Future)

    def answer(self, within: float = 40) -> Posted:
        return self.done.result(within)


class RuntimeApi(LoopThread):
    """`extension_status` is what a registration gets. One after the first `next` is refused, as by Lambda."""

    def __init__(self, extension_status: int = 200) -> None:
        self.invocations: dict[str, Invocation] = {}
        self.log: list[str] = []  # method and path of each request, in order
        self.other: list[Posted] = []  # posted to no invocation: errors of the start
        self.extensions: dict[str, Posted] = {}  # registrations, by identifier
        self.ready: set[str] = set()  # of these, those that wait for an event
        self._extension_status = extension_status
        self.restore = threading.Event()  # until then /restore/next waits
        self._waiting: deque[Invocation] = deque()
        self._arrival = asyncio.Condition()
        super().__init__("runtime-api")

    def invoke(
        self, event: object, seconds: float = 60, refused: int = 202, id: str = "", **headers: str
    ) -> Invocation:
        number = next(_numbers)
        raw = event if isinstance(event, bytes) else json.dumps(event).encode()
        invocation = Invocation(raw, id or f"request-{number}", f"nonce-{number}", seconds, headers, refused)
        self.invocations[invocation.id] = invocation

        async def put() -> None:
            async with self._arrival:
                self._waiting.append(invocation)
                self._arrival.notify()

        asyncio.run_coroutine_threadsafe(put(), self._loop).result(30)
        return invocation

    async def _next(self) -> tuple[int, dict[str, str], bytes]:
        async with self._arrival:
            await self._arrival.wait_for(lambda: self._waiting)
            invocation = self._waiting.popleft()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(round((time.time() + invocation.seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:test",
            "Lambda-Runtime-Trace-Id": f"Root=1-{invocation.id}",
            "Lambda-Runtime-Invocation-Id": invocation.nonce,
            **{name.replace("_", "-"): value for name, value in invocation.headers.items()},
        }
        return 200, headers, invocation.event

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            pairs = (line.partition(":") for line in lines)
            posted = Posted(
                path.removeprefix(BASE), {name.lower(): value.strip() for name, _, value in pairs}
            )
            if posted.path.startswith(EXTENSION):
                if not await self._extend(posted, reader, writer):
                    break
                continue
            self.log.append(f"{method} {posted.path}")
            if posted.path == "invocation/next":
                waiting = asyncio.ensure_future(self._next())
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    break
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                status, headers, body = waiting.result()
            elif posted.path == "restore/next":
                await asyncio.to_thread(self.restore.wait, 20)
                status, headers, body = 200, {}, b""
            else:
                status, headers, body = await self._post(posted, reader)
            fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"HTTP/1.1 {status} Told\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode()
            writer.write(head + body)
            if status == 413:
                break

    async def _extend(
        self, posted: Posted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """False where the connection ends: an extension without events waits until then."""
        if posted.path.endswith("/event/next"):
            assert posted.headers["lambda-extension-identifier"] in self.extensions
            self.ready.add(posted.headers["lambda-extension-identifier"])
            await reader.read(1)
            return False
        await _read(posted, reader)
        late = "GET invocation/next" in self.log
        status, fields = 403 if late else self._extension_status, ""
        if status == 200:
            id = f"extension-{len(self.extensions) + 1}"
            self.extensions[id] = posted
            fields = f"Lambda-Extension-Identifier: {id}\r\n"
        writer.write(f"HTTP/1.1 {status} Told\r\nContent-Length: 2\r\n{fields}\r\n{{}}".encode())
        return True

    async def _post(self, posted: Posted, reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        _, _, rest = posted.path.partition("/")
        invocation = self.invocations.get(rest.partition("/")[0])
        if invocation is None:
            self.other.append(posted)
            await _read(posted, reader)
            return 202, {}, b'{"status":"OK"}'
        invocation.posts.append(posted)
        if (
            posted.headers.get("lambda-runtime-invocation-id") != invocation.nonce
            or invocation.refused == 410
        ):
            await _read(posted, reader)
            return 410, {}, b'{"errorType":"InvokeTimeout"}'
        if invocation.refused == 413:
            return 413, {}, b'{"errorType":"RequestEntityTooLarge"}'
        try:
            await _read(posted, reader)
        finally:
            if not invocation.done.done():
                invocation.done.set_result(posted)
        return 202, {}, b'{"status":"OK"}'

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore.set()
        super().__exit__(kind, exc, traceback)


async def _read(posted: Posted, reader: asyncio.StreamReader) -> None:
    """Chunk by chunk, as it comes."""
    if posted.headers.get("transfer-encoding") != "chunked":
        body = await reader.readexactly(int(posted.headers["content-length"]))
        posted.chunks.append((time.monotonic(), body))
    else:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            posted.chunks.append((time.monotonic(), (await reader.readexactly(size + 2))[:-2]))
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode().partition(":")
            posted.trailers[name.lower()] = value.strip()
    posted.whole = True


class Worker:
    """`with Worker(api, HANDLER) as worker:`, a process that runs the loop."""

    def __init__(
        self,
        api: RuntimeApi,
        handler: str,
        log: Path,
        paths: tuple[Path, ...] = (ROOT / "functions", ROOT / "tests"),
        command: tuple[str, ...] = (sys.executable, "-c", LOOP),
        **environ: str,
    ) -> None:
        self.api = api
        self._log = log
        proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
        own = {name: value for name, value in os.environ.items() if name.upper() not in proxies}
        self._environ = own | {
            "_HANDLER": handler,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            **environ,
        }
        self._command = command

    def __enter__(self) -> Self:
        environ = self._environ | {"AWS_LAMBDA_RUNTIME_API": self.api.address}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=environ, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def invoke(self, event: object, **more: Any) -> Posted:
        return self.api.invoke(event, **more).answer()

    def terminate(self) -> None:
        """As the platform ends a process: with SIGTERM where an extension is ready, else with SIGKILL."""
        self.process.send_signal(signal.SIGTERM if self.api.ready else signal.SIGKILL)

    def ended(self, seconds: float = 40) -> int:
        return self.process.wait(seconds)

    def until(self, true: Callable[[], object], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
