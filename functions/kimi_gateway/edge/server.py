"""The home server: uvicorn with one or more workers, and a shutdown that streams hear of."""

from __future__ import annotations

import signal
from typing import NoReturn

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kimi_gateway import observe, settings
from kimi_gateway.dialects import errors
from kimi_gateway.edge.asgi import App
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that they close first
LARGEST_HEAD = 256 * 1024  # bytes of one request's line and headers, the read it ends in included
AFTER_DRAIN = 5  # seconds for error events and releases once the drain is over


class Protocol(HttpToolsProtocol):
    """uvicorn's, with what it leaves open: a drain, a bound on heads, JSON for what is not HTTP.

    uvicorn waits for open connections before it runs the lifespan's shutdown, and makes the server object of
    its worker processes itself. What it does in every case is to tell each connection: so that is the hook.
    """

    _head: int | None = 0  # bytes of the request head so far; None while a body comes

    def shutdown(self) -> None:
        if isinstance(self.app, App):
            self.app.drain()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.send_400_response("The request's head is too large.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        body = jsonio.dumps(errors.body(InvalidRequest(msg), "openai"))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        self.transport.close()


def create() -> App:
    """The application, from the environment; each worker process calls it."""
    values = settings.read()
    observe.to_stream(values.log_level)
    return App(values)


def run(values: settings.Settings, host: str, port: int, workers: int) -> None:
    """Returns, or raises SystemExit; SIGTERM is an orderly end, with 0."""
    signal.signal(signal.SIGTERM, _end)
    uvicorn.run(
        "kimi_gateway.edge.server:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(values.drain + AFTER_DRAIN),
    )


def _end(signum: int, frame: object) -> NoReturn:
    """Before uvicorn listens to signals, and behind its shutdown, when it raises anew what it caught."""
    raise SystemExit(0)
