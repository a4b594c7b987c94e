"""The gateway on a real socket, in a thread of its own, with what a test needs to see of its inside."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import uvicorn
import uvicorn.protocols

import kimi_gateway
from kimi_gateway import observe
from kimi_gateway.accounts import keys
from kimi_gateway.accounts.usage import summed
from kimi_gateway.accounts.values import Account, Budget, Grant, Limits, NewKey, UsageRow
from kimi_gateway.edge.home.asgi import App
from kimi_gateway.edge.home.protocol import Protocol
from kimi_gateway.settings import Settings
from support import http_client
from support.idle import Loop, pass_time, settle
from upstream import ScriptedUpstream

T = TypeVar("T")
_handlers = threading.Lock()
HELLO = [{"role": "user", "content": "Hello"}]


class LiveGateway:
    """`with LiveGateway(tmp_path, upstream.url) as gateway:`; settings by name, times in seconds.

    Without an upstream's address the demo provider answers.
    """

    protocol: Any = Protocol

    def __init__(
        self,
        data: Path,
        upstream: str | None = None,
        tokens: tuple[str, ...] = ("sk-upstream-1",),
        clock: Callable[[], float] = time.time,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = Loop,
        **more: Any,
    ) -> None:
        if upstream is not None:
            more = {"base_url": upstream, "moonshot_api_key": tokens, **more}
        self.settings = Settings(data=data / "data", **more)
        self.clock = clock
        self.log = io.StringIO()
        self._lines, self._read = list[dict[str, Any]](), 0  # of the log: its first so many characters
        self._server: Any = None
        self._ready = threading.Event()
        self._new_loop = new_loop
        self._thread = threading.Thread(target=self._run, name="gateway")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(self._serve())
        finally:
            self._ready.set()  # also if it could not start

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.app = App(self.settings, self.clock)
        config = uvicorn.Config(
            self.app, http=self.protocol, ws="none", lifespan="on", log_config=None, access_log=False,
            proxy_headers=False, timeout_graceful_shutdown=int(self.settings.drain + 5),
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        listening.close()

    def __enter__(self) -> Self:
        handler = logging.StreamHandler(self.log)
        handler.setFormatter(observe.JsonLines())
        self._handler, observe.log.propagate = handler, False
        with _handlers:  # a new list, since other gateways' threads may go through the old one
            observe.log.handlers = [*observe.log.handlers, handler]
        observe.log.setLevel("INFO")
        self._thread.start()
        self._ready.wait()
        assert getattr(self._server, "started", False), self.log.getvalue()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        with _handlers:
            observe.log.handlers = [each for each in observe.log.handlers if each is not self._handler]

    def stop(self) -> None:
        """As SIGTERM does: returns when the server has gone down."""
        self.begin_stop()
        self._thread.join(100)
        assert not self._thread.is_alive(), f"it did not go down\n{self.log.getvalue()}"

    def begin_stop(self) -> None:
        self._server.should_exit = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> Any:
        assert self.app.running is not None
        return self.app.running.store

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        """Run something on the gateway's own loop."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(30)

    def call(self, step: Callable[[], object]) -> None:
        """The same for what is no coroutine."""
        self._loop.call_soon_threadsafe(step)

    def pass_time(self, seconds: float) -> None:
        """What waits at most so long waits no longer. No time passes for what has to be done."""
        self.do(pass_time(seconds))

    def never_wait(self, up: ScriptedUpstream, seconds: float) -> None:
        """Let so much time pass whenever the upstream falls silent for good."""
        up.at_halt = lambda: asyncio.run_coroutine_threadsafe(pass_time(seconds), self._loop)

    def key(self, credits: int | None = 100, limits: Limits | None = None, see_balance: bool = False) -> str:
        """A new account's key; None credits are an unlimited account."""
        now, key = int(self.clock()), keys.new_key()

        async def make() -> None:
            account = await self.store.create_account("", None if credits is None else Grant(credits), now)
            digest = keys.digest(key)
            await self.store.create_key(NewKey(digest, account.id, "", limits or Limits(), see_balance), now)

        self.do(make())
        return key

    def limit(self, key: str, *budgets: Budget) -> str:
        """Give a key these budgets; returns it."""
        now = int(self.clock())
        change = partial(replace, budgets=budgets)
        self.do(self.store.update_key(keys.digest(key), change, now))
        return key

    def account(self, key: str) -> Account:
        """What the ledger says: `credits` settled, `reserved` beside it."""
        account: Account = self.do(self.store.account(keys.digest(key), int(self.clock())))
        return account

    def usage(self, key: str) -> list[UsageRow]:
        """By model, since an hour may end between two requests."""
        rows: list[UsageRow] = self.do(self.store.usage(0, self.account(key).id))
        return summed(rows, ("account", "key", "model"))

    def client(self, key: str | None = None, headers: dict[str, str] | None = None) -> httpx.Client:
        """An HTTP client that knows nothing of the gateway."""
        auth = {"authorization": f"Bearer {key}"} if key else {}
        headers = auth | (headers or {})
        return http_client.client(self.url, headers, timeout=90)

    def chat(self, key: str, **body: Any) -> httpx.Response:
        with self.client(key) as client:
            return client.post("/v1/chat/completions", json={"model": "kimi-k3", "messages": HELLO} | body)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one kind. Each is parsed once."""
        whole, _, _ = self.log.getvalue()[self._read :].rpartition("\n")
        if whole:
            self._read += len(whole) + 1
            self._lines += map(json.loads, whole.split("\n"))
        return [line for line in self._lines if line["event"] == event]

    def tasks(self) -> list[str]:
        """What runs on the gateway's loop for requests: nothing, when all of them are over."""

        async def look() -> list[str]:
            coroutines = [task.get_coro() for task in asyncio.all_tasks()]
            return [str(each) for each in coroutines if serves_requests(each)]

        return self.do(look())

    def rest(self) -> None:
        """Let the gateway do all that it can do with what it has received."""
        self.do(settle())

    def until(self, true: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait for something that comes about on the gateway's side."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"it did not come about\n{self.log.getvalue()}"
            time.sleep(0.005)

    def nothing_left(self, *of_keys: str) -> None:
        """No task, turn or lease is left of any request, and nothing that the server would wait for."""
        assert self.app.running is not None
        self.until(lambda: not self.tasks())
        self.until(lambda: not self._server.server_state.tasks)
        assert not self.app.running.gateway.turns
        for key in of_keys:
            assert self.account(key).reserved == 0


_STANDING = ("_beat",)  # coroutines of app.py that run as long as the gateway
_FOLDERS = tuple(f"{Path(module.__file__).parent}/" for module in (kimi_gateway, uvicorn.protocols))


def serves_requests(coroutine: Any) -> bool:
    """Whether it is of the gateway, or of the server's work for one request, by the file of its code."""
    code = getattr(coroutine, "cr_code", None)
    if code is None:
        return True  # an asynchronous generator's step, which only requests take
    return code.co_filename.startswith(_FOLDERS) and code.co_name not in _STANDING


def events(text: str) -> list[str]:
    """The data of each SSE event; comments are not events."""
    frames = [frame for frame in text.split("\n\n") if frame]
    return [
        "\n".join(line[6:] for line in frame.split("\n")) for frame in frames if frame.startswith("data: ")
    ]


def text_of(stream: str) -> str:
    """The content that a stream carried."""
    chunks = [json.loads(data) for data in events(stream) if data != "[DONE]"]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())
    )
