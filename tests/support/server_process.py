"""The gateway as it runs at home: `kimi-gateway serve` in a process of its own, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Account, Grant, Limits, NewKey
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite.opening import STORE_NAME, open_store
from kimi_gateway.storage.sqlite.store import SqliteStore
from support import http_client
from support.tls import NO_TLS

T = TypeVar("T")


class StoreAtHome:
    """The SQLite store of a data folder, for tests of processes that use it."""

    def __init__(self, data: Path) -> None:
        self.settings = Settings(data=data / "data")

    def key(self, credits: int | None = 100, limits: Limits | None = None) -> str:
        """Of a new account, written straight into the store that all processes share."""
        now, key = int(time.time()), keys.new_key()

        async def make(store: SqliteStore) -> None:
            account = await store.create_account("", None if credits is None else Grant(credits), now)
            await store.create_key(NewKey(keys.digest(key), account.id, limits=limits or Limits()), now)

        self._store(make)
        return key

    def account(self, key: str) -> Account:
        return self._store(lambda store: store.account(keys.digest(key), int(time.time())))

    def lease_ends(self) -> int:
        """The unix second at which the last of the leases ends; 0 without one."""
        with closing(sqlite3.connect(self.settings.data / STORE_NAME)) as db:
            return int(db.execute("SELECT coalesce(max(expires), 0) FROM leases").fetchone()[0])

    def _store(self, step: Callable[[SqliteStore], Awaitable[T]]) -> T:
        async def run() -> T:
            store = open_store(self.settings)
            try:
                return await step(store)
            finally:
                await store.close()

        return asyncio.run(run())


class ServerProcess(StoreAtHome):
    """`with ServerProcess(tmp_path, upstream.url, workers=2, drain=1) as server:`; settings by name."""

    def __init__(
        self,
        data: Path,
        upstream: str,
        workers: int = 1,
        tokens: tuple[str, ...] = ("sk-upstream-1",),
        **settings: object,
    ) -> None:
        self.folder = data
        super().__init__(data)
        named = {f"KIMI_GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
        own = {name: value for name, value in os.environ.items() if name.upper() not in proxies}
        self._environment = own | named | {
            "KIMI_GATEWAY_DATA": str(self.settings.data),
            "KIMI_BASE_URL": upstream,
            "MOONSHOT_API_KEY": ",".join(tokens),
        }  # fmt: skip
        self._command = [sys.executable, "-m", "kimi_gateway.cli", "serve", "--port", "0"]
        self._command += ["--workers", str(workers)]

    def __enter__(self) -> Self:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        self.url = first.split()[-1]
        self.until(self._answers, 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Whatever the test did, no process of the group is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ended(self, seconds: float = 40) -> int:
        """The exit code, once its workers too are gone: only then has its output an end."""
        self.process.communicate(timeout=seconds)
        code: int = self.process.returncode
        return code

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def outages(self) -> list[tuple[str, str]]:
        """Those in the store: the token's id and the cause."""
        return [(token, cause) for token, _, cause, _ in self._store(lambda store: store.published())]

    def client(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return http_client.client(self.url, headers, timeout=30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/ping", trust_env=False, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    def until(self, true: Callable[[], bool], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)
