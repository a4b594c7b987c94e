"""The yardstick: the proxy that one writes with FastAPI and httpx in an afternoon. No keys, no ledger."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

UPSTREAM = os.environ.get("BENCH_UPSTREAM", "")
HEADERS = {"authorization": "Bearer sk-upstream-token"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # httpx's own limits stay: a pool for a thousand connections made it three times as dear at 64 clients.
    async with httpx.AsyncClient(base_url=UPSTREAM, headers=HEADERS, timeout=600) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    client: httpx.AsyncClient = request.app.state.client
    body = await request.json()
    if not body.get("stream"):
        answer = await client.post("/chat/completions", json=body)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
    answer = await client.send(client.build_request("POST", "/chat/completions", json=body), stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        answer.status_code,
        media_type=answer.headers.get("content-type"),
        background=BackgroundTask(answer.aclose),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app, host="127.0.0.1", port=parser.parse_args().port, http="httptools", ws="none", lifespan="on",
        log_config=None, access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=75,
    )  # fmt: skip
