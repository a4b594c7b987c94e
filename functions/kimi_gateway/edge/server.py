"""The home server: uvicorn with one or more workers, and a shutdown that streams hear of."""

from __future__ import annotations

import signal
from typing import NoReturn

import uvicorn

from kimi_gateway import observe, settings
from kimi_gateway.edge.asgi import App

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that they close first
AFTER_DRAIN = 5  # seconds for error events and releases once the drain is over


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
        http="kimi_gateway.edge.protocol:Protocol",
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
