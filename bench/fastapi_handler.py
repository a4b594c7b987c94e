"""What one would write instead: FastAPI behind Mangum, boto3 for table and secret, httpx for the upstream."""

from __future__ import annotations

import os
from typing import Any

import boto3
import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from mangum import Mangum

region = {"region_name": "eu-central-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
table = boto3.client("dynamodb", **region)  # type: ignore[call-overload]
secrets = boto3.client("secretsmanager", **region)  # type: ignore[call-overload]
upstream = httpx.AsyncClient(base_url=os.environ.get("BENCH_UPSTREAM", "http://127.0.0.1"))
app = FastAPI()


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Any:
    body = await request.json()

    async def pieces() -> Any:
        async with upstream.stream("POST", "/chat/completions", json=body) as answer:
            async for piece in answer.aiter_raw():
                yield piece

    return StreamingResponse(pieces(), media_type="text/event-stream")


handler = Mangum(app, lifespan="off")
