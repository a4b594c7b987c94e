"""One request, and a loop and client for it: what the tests of the HTTP seam share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import pytest

from kimi_gateway.net import http
from support.idle import Loop
from upstream import ScriptedUpstream

T = TypeVar("T")
SECRET = "sk-very-secret"
HEADERS = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
BODY = b'{"model":"kimi-k3","stream":true,"messages":[{"role":"user","content":"hi"}]}'
TIMES = http.Timeouts(connect=30, first_byte=30)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
LENGTH = HEAD + b"content-length: 10\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


class Run(Protocol):
    def __call__(self, scenario: Callable[[http.Client], Awaitable[T]], connections: int = 100) -> T: ...


def runner(kind: Callable[[int], http.Client]) -> Run:
    def run(scenario: Callable[[http.Client], Awaitable[T]], connections: int = 100) -> T:
        async def main() -> T:
            client = kind(connections)
            try:
                return await scenario(client)
            finally:
                await client.close()

        with pytest.MonkeyPatch.context() as patch:
            for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
                patch.delenv(name, raising=False)
                patch.delenv(name.upper(), raising=False)
            with asyncio.Runner(loop_factory=Loop) as loop:
                return loop.run(main())

    return run


async def ask(client: http.Client, up: ScriptedUpstream, times: http.Timeouts = TIMES) -> list[bytes]:
    async with post(client, up, times) as answer:
        return [chunk async for chunk in answer.chunks()]


def post(
    client: http.Client, up: ScriptedUpstream, times: http.Timeouts = TIMES
) -> AbstractAsyncContextManager[http.Answer]:
    return client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, times)
