"""The home server: uvicorn with one or more workers, and a shutdown that reaches streams."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
from typing import NoReturn

import uvicorn

from kimi_gateway import observe, settings
from kimi_gateway.edge.home.allocator import SETTLED, share_heap
from kimi_gateway.edge.home.asgi import App, descriptors
from kimi_gateway.observe.terminal import formatter

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that they close first
BACKLOG = (
    2048  # connections that the system queues for the server, and that it accepts in one turn of its loop
)
ENOUGH = 65_536  # descriptors if there is no hard limit
AFTER_DRAIN = 5  # seconds for error events and releases after the drain
# Requests leave no cycles, closed connections leave a few KiB. So the garbage collector runs after 5,000 new
# objects; whatever is alive then is looked at again in one of a hundred runs, because that takes as long as
# there are objects: 70 ms with 500 streams.
COLLECTED = 5_000, 0, 100


def create() -> App:
    """The application, from the environment; each worker process calls it, in its event loop."""
    values = settings.read()
    _end_with_parent()
    observe.to_stream(values.log_level, formatter=formatter(values.log_format, sys.stderr))
    app = App(values)
    asyncio.get_running_loop().call_later(SETTLED, _settle, app)
    return app


def _settle(app: App) -> None:
    """End what only a start does. The modules are no garbage, so later collections leave them out."""
    from kimi_gateway.edge.home import leftovers  # a start need not wait for it

    share_heap()
    gc.freeze()
    gc.set_threshold(*COLLECTED)
    gc.enable()
    leftovers.watch(app)


def run(values: settings.Settings, host: str, port: int, workers: int) -> None:
    """Serve until the end. Returns or raises SystemExit; SIGTERM is an orderly end with code 0."""
    signal.signal(signal.SIGTERM, _end)
    raise_descriptors()
    uvicorn.run(
        "kimi_gateway.edge.home.server:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="asyncio",  # by itself uvicorn takes uvloop if there is one
        http="kimi_gateway.edge.home.protocol:Protocol",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=backlog(descriptors()),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(values.drain + AFTER_DRAIN),
    )


def raise_descriptors() -> None:
    """Raise the soft limit of open files and sockets to the hard one; workers inherit it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    most = max(soft, ENOUGH) if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):  # systems with a lower limit of their own
        return


def backlog(limit: int | None) -> int:
    """The length of the accept queue: few enough that accepted connections, while others are closed for them,
    do not use up the descriptors. Closing takes four turns of the loop."""
    return BACKLOG if limit is None else max(min(BACKLOG, limit // 12), 1)


def _end_with_parent() -> None:
    """End a worker whose parent was killed; it would serve for ever, unseen."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    from multiprocessing.connection import wait

    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _end(signum: int, frame: object) -> NoReturn:
    """Handles SIGTERM before uvicorn does, and after its shutdown, when it raises the signal again."""
    raise SystemExit(0)
