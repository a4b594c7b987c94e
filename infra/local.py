"""All paths in one function, for `sam local`: the FastAPI application behind Mangum, which buffers answers.

Not deployed. Mangum starts and stops the application with each event; what lasts is a file in the container.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from mangum import Mangum

from kimi_gateway import observe, settings
from kimi_gateway.cli.serve import first_key
from kimi_gateway.edge.home.asgi import App
from kimi_gateway.storage.sqlite.store import SqliteStore

values = settings.read()
observe.to_stream(values.log_level)
gateway = App(values)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    await gateway.start()
    store = gateway.running.store if gateway.running else None
    if isinstance(store, SqliteStore) and (key := await first_key(store, int(time.time()))):
        print(f"Your key, unlimited, while this container lives: {key}")
    yield
    await gateway.stop()


# The gateway serves its own pages of docs, from its own table.
app = FastAPI(lifespan=running, docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/", gateway)
handler = Mangum(app, lifespan="on")
