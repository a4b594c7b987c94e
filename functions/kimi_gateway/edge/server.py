"""The home server: uvicorn with one or more workers, and a shutdown that streams hear of."""

from __future__ import annotations

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kimi_gateway import observe, settings
from kimi_gateway.edge.asgi import App

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that they close first
AFTER_DRAIN = 5  # seconds for error events and releases once the drain is over


class DrainingProtocol(HttpToolsProtocol):
    """uvicorn waits for open connections before it runs the lifespan's shutdown, and in its worker processes
    it makes the server itself. What it does in every case is to tell each connection: so that is the hook.
    """

    def shutdown(self) -> None:
        app = self.app
        if isinstance(app, App):
            app.drain()
        super().shutdown()


def create() -> App:
    """The application, from the environment; each worker process calls it."""
    values = settings.read()
    observe.to_stream(values.log_level)
    return App(values)


def run(values: settings.Settings, host: str, port: int, workers: int) -> None:
    uvicorn.run(
        "kimi_gateway.edge.server:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=DrainingProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(values.drain + AFTER_DRAIN),
    )
