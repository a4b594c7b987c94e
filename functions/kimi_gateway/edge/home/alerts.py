"""Alerts to one webhook and to the log, each once for its cause, with the recovery.

Of all processes on a data folder one watches: the one that has the lock of the file with the problems that
hold. The file outlives it, so neither a restart nor the next watcher repeats a message.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.refusals import shown
from kimi_gateway.accounts.store import StoreDown, Unknown
from kimi_gateway.accounts.values import NEVER, Account
from kimi_gateway.app import Running
from kimi_gateway.edge.home.counting import Counting
from kimi_gateway.edge.home.posting import FLUSH, Failed, Sleep, post
from kimi_gateway.errors import GatewayError
from kimi_gateway.net.http import Client
from kimi_gateway.observe import emit, redact
from kimi_gateway.observe.alerts import STORE, WINDOW, Facts, Problem, Spending, changed, problems, unknown
from kimi_gateway.providers.failures import UpstreamFailure

NAME = "alerts.json"
EVERY = 15.0  # seconds between two looks
BUDGETS_EVERY, BALANCE_EVERY = 60.0, 600.0
ACTIVE = 7_200  # seconds; only accounts with usage since then are looked at
MOST_ACCOUNTS = 200  # of one look, those that were used last
PROBE = 5.0  # seconds for the store
QUEUE = 100  # messages that wait for the webhook
TIMEOUT = 30.0  # seconds for one message with all its tries
ONLY_LOG = "log"


class Webhook:
    """Sends messages one after another; callers never wait. Too many are dropped and counted."""

    def __init__(self, url: str, client: Client, counting: Counting, sleep: Sleep = asyncio.sleep) -> None:
        redact.learn([url, url.split("/", 3)[-1]])
        self._url = url
        self._client = client
        self._counting = counting
        self._sleep = sleep
        self._waiting = deque[str]()
        self._sending: asyncio.Task[None] | None = None

    def send(self, text: str) -> None:
        if len(self._waiting) >= QUEUE:
            self._count("dropped")
            return
        self._waiting.append(text)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=FLUSH)
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._client.close()

    async def _beat(self) -> None:
        while self._waiting:
            body = json.dumps({"text": _escaped(self._waiting[0])}).encode()
            try:
                await post(self._client, self._url, body, TIMEOUT, sleep=self._sleep)
                self._count("sent")
            except Failed as exc:
                self._count("failed")
                emit("alert_unsent", logging.WARNING, detail=str(exc))
            self._waiting.popleft()

    def _count(self, result: str) -> None:
        self._counting.metrics.add("alerts_total", (result,))


class Alerts:
    """Looks from `start` to `stop`. `least` is the balance below which to warn, 0 for none."""

    def __init__(
        self,
        data: Path,
        counting: Counting,
        webhook: Webhook | None,
        least: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.disk: Callable[[], tuple[int, int]] = lambda: _disk(data)
        self._path = data / NAME
        self._counting = counting
        self._webhook = webhook
        self._least = least
        self._clock = clock
        self._lock: int | None = None
        self._active: Mapping[str, Problem] = {}
        self._counts = deque[tuple[float, float, float, float]]()  # time, requests, failures, store failures
        self._due: dict[str, float] = {}
        self._beating: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()

    def start(self) -> None:
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._webhook is not None:
            await self._webhook.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _beat(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as exc:
                emit("alerts_failed", logging.ERROR, detail=f"{type(exc).__name__}: {exc}")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Look once, and report what has changed. Nothing if another process watches."""
        async with self._looking:  # two looks at once would report the same twice
            await self._look()

    async def _look(self) -> None:
        running = self._counting.running
        if running is None or not self._watching():
            return
        facts = await self._facts(running)
        change = changed(self._active, problems(facts), unknown(facts))
        for each in change.begun:
            emit("alert", logging.WARNING, alert=each.kind, detail=each.text)
            self._report(each.text)
        for each in change.ended:
            emit("alert_over", alert=each.kind, detail=each.text)
            self._report(f"Recovered. Before: {each.text}")
        if dict(change.active) != dict(self._active):
            self._active = change.active
            self._write()
        self._counting.more["alert_active"] = {(each.kind,): 1.0 for each in self._active.values()}

    def _report(self, text: str) -> None:
        if self._webhook is not None:
            self._webhook.send(f"Kimi Gateway on {socket.gethostname()}: {text}")

    async def _facts(self, running: Running) -> Facts:
        look = self._counting.look()
        counts = [
            sum(cells[0] for cells in look[name].values()) for name in ("requests_total", "failures_total")
        ]
        of_store = sum(
            cells[0] for labels, cells in look["events_total"].items() if labels[0].startswith("store_")
        )
        now = self._clock()
        last = self._counts[-1][3] if self._counts else of_store
        self._counts.append((now, counts[0], counts[1], of_store))
        while now - self._counts[0][0] > WINDOW:
            self._counts.popleft()
        fault = await _probed(running)
        if not fault and of_store > last:
            fault = "requests failed because of it since the last look"
        free: tuple[int, int] | None = None
        with suppress(OSError):
            free = self.disk()
        return Facts(
            outages=[(token, cause) for token, cause in look["upstream_token_out"]],
            requests=counts[0] - self._counts[0][1],
            failures=counts[1] - self._counts[0][2],
            store=fault,
            disk=free,
            balance=await self._balance(running),
            least=self._least,
            budgets=None if fault else await self._budgets(running),
        )

    async def _balance(self, running: Running) -> float | None:
        if not self._least or not self._is_due("balance", BALANCE_EVERY):
            return None
        try:
            found = await running.endpoints.account.directory.balance()
        except (UpstreamFailure, GatewayError):
            return None
        return found.get("available_balance")

    async def _budgets(self, running: Running) -> list[Spending] | None:
        """Budgets of accounts that were used lately."""
        if not self._is_due("budgets", BUDGETS_EVERY):
            return None
        now, found = int(self._clock()), list[Spending]()
        try:
            rows = await running.store.usage_sums(now - ACTIVE, ("account",))
            for row in sorted(rows, key=lambda row: row.last, reverse=True)[:MOST_ACCOUNTS]:
                with suppress(Unknown):
                    found += _spending(await running.store.account(row.account, now))
        except StoreDown:
            return None
        return found

    def _is_due(self, what: str, every: float) -> bool:
        now = self._clock()
        if 0 <= now - self._due.get(what, -every) < every:
            return False
        self._due[what] = now
        return True

    def _watching(self) -> bool:
        """Whether this process has the lock."""
        if self._lock is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._lock = handle
        with suppress(ValueError, TypeError):
            read = [Problem(*each) for each in json.loads(self._path.read_bytes() or b"[]")]
            self._active = {each.id: each for each in read}
        return True

    def _write(self) -> None:
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, json.dumps([tuple(each) for each in self._active.values()]).encode(), 0)


def _spending(account: Account) -> list[Spending]:
    keys = {key.id: key.name for key in account.keys}
    found = []
    for scope, budget, amount, resets in account.spent:
        if budget.period == "minute" or budget.limit <= 0:
            continue  # a rate limit
        named = f"Account {account.name or account.id}" if not scope else f"Key {keys.get(scope) or scope}"
        when = f" It resets at {utc(resets)}." if resets < NEVER else ""
        period = "in total" if budget.period == "total" else f"a {budget.period}"
        found.append(Spending(named, f"{shown(budget)} {period}", amount / budget.limit, when))
    return found


async def _probed(running: Running) -> str:
    """The store's fault, empty if it answers."""
    try:
        async with asyncio.timeout(PROBE):
            await running.store.find_key("")
    except StoreDown as exc:
        return str(exc) or STORE
    except TimeoutError:
        return "no answer in time"
    return ""


def _disk(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def _escaped(text: str) -> str:
    """For Slack, where these characters begin mentions and links."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
