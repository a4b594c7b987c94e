"""One request behind either edge, and what it cost: bytes read, calls of the store and upstream, steps."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from kimi_gateway.edge.aws.function import Function
from kimi_gateway.edge.aws.lambda_runtime import Context, Streamed
from kimi_gateway.edge.router import Route
from kimi_gateway.http import Headers, Request
from kimi_gateway.storage.memory import MemoryStore
from support import api_gateway
from support.inprocess import InProcess

BIG = b'{"model":"kimi-k3","messages":[],"input":"' + b"x" * 2**20
WRITES = {"admit", "settle", "release", "renew", "grant", "create_account", "create_key", "revoke_key"}
CHATS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
GOOD: dict[str, Any] = {
    "model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}], "input": "Hello", "max_tokens": 9,
}  # fmt: skip


class CountedStore:
    """Each call by its name."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.calls = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)

        async def counted(*given: Any) -> Any:
            self.calls[name] += 1
            return await call(*given)

        return counted


@dataclass
class Spent:
    """What one request cost. `read`: bytes of its body."""

    status: int
    body: bytes
    read: int
    counted: int | None
    store: Counter[str] = field(default_factory=Counter)
    upstream: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def steps(self) -> int:
        assert self.counted is not None, "set `desk.counting` first"
        return self.counted

    @property
    def writes(self) -> int:
        return sum(count for name, count in self.store.items() if name in WRITES)


class Steps:
    """Calls of the package's functions while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _: object) -> None:
        self.count += event == "call" and "/kimi_gateway/" in frame.f_code.co_filename


class Text(str):
    """The body of a proxy event, which knows how often it was turned into bytes."""

    taken = 0

    def encode(self, *given: Any) -> bytes:
        self.taken += 1
        return super().encode(*given)


class Desk:
    """The gateway behind one edge. It counts steps while it is `counting`, which takes most of the time."""

    counting = False

    def __init__(self, inner: InProcess, store: CountedStore, edge: str) -> None:
        self.inner = inner
        self.store = store
        self.at_home = edge == "home"
        self.functions = Function(), Function(streamed=True)
        for function in self.functions:
            function.serve(inner.running)

    def ask(self, method: str, path: str, body: bytes = b"", key: str | None = None) -> Spent:
        self.store.calls.clear()
        self.inner.client.sent.clear()
        headers = (("content-type", "application/json"), ("content-length", str(len(body))))
        if key:
            headers = (*headers, ("authorization", f"Bearer {key}"))  # type: ignore[assignment]
        serve = self._home if self.at_home else self._lambda
        with Steps() if self.counting else nullcontext() as steps:
            status, answer, read = self.inner.run(serve(method, path, headers, body))
        upstream = [sent.path for sent in self.inner.client.sent]
        return Spent(status, answer, read, steps and steps.count, Counter(self.store.calls), upstream)

    async def _home(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, bytes, int]:
        read = 0

        async def whole() -> bytes:
            nonlocal read
            read += len(body)
            return body

        response = await self.inner.router.handle(Request(method, path, Headers(headers), "req_1", whole))
        said = response.body
        answer = said if isinstance(said, bytes) else b"".join([piece async for piece in said])
        await response.finish()
        return response.status, answer, read

    async def _lambda(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, bytes, int]:
        event = api_gateway.event(method, path, headers, body)
        event["body"] = said_by = Text(event["body"] or "")
        function = self.functions[path in CHATS]
        answer = await function(event, Context("aws-1", round((time.time() + 60) * 1000)))
        if isinstance(answer, Streamed):
            said = answer.body
            text = said if isinstance(said, bytes) else b"".join([piece async for piece in said])
            await answer.close()
            return answer.status, text, said_by.taken * len(body)
        proxied = api_gateway.of_proxy(answer)
        return proxied.status, proxied.body, said_by.taken * len(body)

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.inner.router.table
