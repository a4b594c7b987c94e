"""Lambda's proxy events as requests, and a function bound to a gateway in this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kimi_gateway.edge.aws.function import Function, request_of
from kimi_gateway.edge.aws.lambda_runtime import Context
from kimi_gateway.http import Request
from support import api_gateway
from support.inprocess import InProcess

CHAT = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}


def context(seconds: float = 60) -> Context:
    return Context("aws-1", round((time.time() + seconds) * 1000))


def request(limit: int = 10**6, seconds: float = 60, **event: Any) -> Request:
    return request_of(api_gateway.event("GET", "/ping") | event, context(seconds), limit)


def body(request: Request) -> bytes:
    return asyncio.run(request.body())  # type: ignore[arg-type]


def bound(gateway: InProcess, *paths: str, **more: Any) -> Function:
    function = Function(*paths, **more)
    function.serve(gateway.running)
    return function
