"""A small web server of a test's own, for addresses that requests name."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class ThreadedServer:
    """A server on loopback in a thread of its own."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], name: str) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=name)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Web(ThreadedServer):
    """`files` by path. `asked` are the paths that were fetched. A path that is not there gets 404; one that
    is None is never answered."""

    def __init__(self, **files: bytes | None) -> None:
        self.files = {f"/{name.replace('_', '.')}": data for name, data in files.items()}
        self.asked: list[str] = []
        self.over = threading.Event()
        web = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                data = web.files.get(self.path, b"")
                if data is None:
                    web.over.wait(30)
                    return
                self.send_response(200 if data else 404)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        super().__init__(Handler, "web")

    @property
    def url(self) -> str:
        return f"http://{self.target}"

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        super().__exit__(kind, exc, traceback)
