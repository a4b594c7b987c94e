"""The gateway behind `Router.handle`, without a socket: a store in memory, a client that is told what to
answer, a clock that is set. For tests of many requests, or of time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from kimi_gateway import app
from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Account, Grant, Limits, NewKey
from kimi_gateway.edge.router import Router, request_id
from kimi_gateway.edge.routes import routes
from kimi_gateway.http import Headers, Query, Request
from kimi_gateway.net.http import Timeouts
from kimi_gateway.providers.directory import Directory
from kimi_gateway.settings import Settings
from kimi_gateway.storage.memory import MemoryStore
from upstream import chat_events
from upstream.kimi import WINDOWS, balance, model_row

NOW = 1_795_212_030  # half past a UTC minute
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sent:
    """What the gateway sent upstream."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Told:
    """What the upstream answers; an Answer of the client's seam."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: list[bool] = field(default_factory=list, compare=False)  # whether its parts may be gathered

    async def chunks(self, gathered: bool = False) -> AsyncIterator[bytes]:
        self.asked.append(gathered)
        yield self.body

    async def read(self, limit: int) -> bytes:
        return self.body[:limit]


def told(body: object, status: int = 200) -> Told:
    return Told(status, {"content-type": "application/json"}, json.dumps(body).encode())


def streamed(*events: object, done: bool = True) -> Told:
    frames = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return Told(200, {"content-type": "text/event-stream"}, frames + b"data: [DONE]\n\n" * done)


def kimi(sent: Sent) -> Told:
    match sent.path:
        case "/v1/models":
            return told({"object": "list", "data": [model_row(id) for id in WINDOWS]})
        case "/v1/users/me/balance":
            return told(balance(49.58))
        case "/v1/tokenizers/estimate-token-count":
            return told({"data": {"total_tokens": 7}})
    return streamed(*chat_events(model=sent.body["model"]))


class DoubledClient:
    """Records what is sent and gives what `answer` says; an exception of it is raised."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answer: Callable[[Sent], Told] = kimi
        self.reads = True  # the bodies of what is sent

    @property
    def chats(self) -> list[Sent]:
        return [sent for sent in self.sent if sent.path == "/v1/chat/completions"]

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Told]:
        sent = Sent(method, urlsplit(url).path, headers, json.loads(body) if body and self.reads else None)
        self.sent.append(sent)

        @asynccontextmanager
        async def answered() -> AsyncIterator[Told]:
            yield self.answer(sent)

        return answered()

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class InProcess:
    def __init__(self, store: MemoryStore | None = None, **settings: Any) -> None:
        values = {"base_url": "http://upstream.test/v1", "moonshot_api_key": ("sk-upstream-1",), **settings}
        self.now: float = NOW
        self.client = DoubledClient()
        self.store = store or MemoryStore()
        self._settings = Settings(**values)
        self._runner = asyncio.Runner()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        self.running = self.run(
            app.start(self._settings, store=self.store, client=self.client, clock=lambda: self.now)
        )
        self.router = Router(routes(self.running.gateway, self.running.endpoints))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.run(self.running.stop())
        self._runner.close()

    @property
    def directory(self) -> Directory:
        return self.running.gateway.registry.directories["moonshot"]

    def run(self, step: Any) -> Any:
        """`Runner.run` would also set the handler of SIGINT twice, which takes longer than most calls."""
        return self._runner.get_loop().run_until_complete(step)

    def key(self, credits: int | None = 100, limits: Limits | None = None, see_balance: bool = False) -> str:
        """A new account's key; None credits are an unlimited account."""
        key = keys.new_key()
        opening = None if credits is None else Grant(credits)
        account = self.run(self.store.create_account("", opening, NOW))
        new = NewKey(keys.digest(key), account.id, "", limits or Limits(), see_balance)
        self.run(self.store.create_key(new, int(self.now)))
        return key

    def account(self, key: str) -> Account:
        account: Account = self.run(self.store.account(keys.digest(key), int(self.now)))
        return account

    def call(
        self, method: str, path: str, body: object = b"", key: str | None = None, *more: tuple[str, str],
        client: str = "192.0.2.1",
    ) -> Answered:  # fmt: skip
        """One request, read to its end. Bytes are sent as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers: Pairs = (*more, ("authorization", f"Bearer {key}")) if key else more
        if raw and not any(name == "content-type" for name, _ in headers):
            headers = (*headers, ("content-type", "application/json"))
        return self.run(self._call(method, path, raw, Headers(headers), client))  # type: ignore[no-any-return]

    async def _call(self, method: str, path: str, raw: bytes, headers: Headers, client: str) -> Answered:
        async def read() -> bytes:
            return raw

        path, _, query = path.partition("?")
        id = request_id(headers.get("x-request-id"))
        request = Request(method, path, headers, id, read, client, query=Query(query))
        response = await self.router.handle(request)
        body = response.body
        if not isinstance(body, bytes):
            body = b"".join([piece async for piece in body])
        await response.close()
        return Answered(response.status, dict(response.headers), body)

    def chat(self, key: str, body: object = b"", *more: tuple[str, str]) -> Answered:
        """A chat; a dict joins a good request."""
        if isinstance(body, dict):
            body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]} | body
        return self.call("POST", "/v1/chat/completions", body, key, *more)
