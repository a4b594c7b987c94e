"""A Lambda Runtime API for a benchmark: tells when a process asks for work, and gives it events to answer."""

from __future__ import annotations

import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

DEADLINE = 600  # seconds


class RuntimeApi:
    """`asked`: time.perf_counter() of each GET /next. `give` an event, `answered` gets its answer's size."""

    def __init__(self) -> None:
        self.asked: queue.Queue[float] = queue.Queue()
        self.answered: queue.Queue[int] = queue.Queue()
        self._events: queue.Queue[bytes | None] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def give(self, event: bytes) -> None:
        self._events.put(event)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.endswith("/extension/event/next"):
                    self.close_connection = True
                    self.rfile.read(1)  # until the process ends: the extension wants no events
                    return
                api.asked.put(time.perf_counter())
                event = api._events.get()
                if event is None:
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "bench")
                self.send_header("Lambda-Runtime-Deadline-Ms", str(round((time.time() + DEADLINE) * 1000)))
                self.send_header("Content-Length", str(len(event)))
                self.end_headers()
                self.wfile.write(event)

            def do_POST(self) -> None:
                size = 0
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while piece := int(self.rfile.readline(), 16):
                        size += len(self.rfile.read(piece + 2)) - 2
                    while self.rfile.readline().strip():
                        pass
                else:
                    size = len(self.rfile.read(int(self.headers["Content-Length"])))
                registering = self.path.endswith("/extension/register")
                self.send_response(200 if registering else 202)
                if registering:
                    self.send_header("Lambda-Extension-Identifier", "bench")
                self.send_header("Content-Length", "0")
                self.end_headers()
                if not registering:
                    api.answered.put(size if self.path.endswith("/response") else -1)

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler

    def forget(self) -> None:
        """The process that waits is ended."""
        self._events.put(None)
