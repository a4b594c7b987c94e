"""The composition root: the only place that knows which store, provider and client are used."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.replay import Replay
from kimi_gateway.accounts.replay_memory import MemoryReplay, RememberedReplay
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.catalog import catalog
from kimi_gateway.errors import Unavailable
from kimi_gateway.gateway import Gateway
from kimi_gateway.home import open_store
from kimi_gateway.net.http import Client, Timeouts
from kimi_gateway.net.http1 import Http1Client, proxied
from kimi_gateway.observe import emit, redact
from kimi_gateway.providers.demo import Demo
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.moonshot import Moonshot
from kimi_gateway.providers.news import LocalRecord, Record
from kimi_gateway.providers.pool import Pool
from kimi_gateway.providers.provider import Token, Upstream
from kimi_gateway.providers.tokens import NAME, TokenFile
from kimi_gateway.queries import Queries
from kimi_gateway.settings import Settings
from kimi_gateway.thoughts import Thoughts


@dataclass(slots=True)
class Running:
    gateway: Gateway
    queries: Queries
    store: Store
    client: Client
    pool: Pool
    heart: asyncio.Task[None]

    async def stop(self) -> None:
        """Streams have ended by now; what they left behind is finished, bounded in time."""
        self.heart.cancel()
        await asyncio.gather(self.heart, return_exceptions=True)
        background = self.gateway.background
        if background:
            await asyncio.wait(background, timeout=2)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.gateway.ledger.drain(5)
        await self.client.close()
        await self.pool.close()
        await self.store.close()


def token_source(settings: Settings) -> Callable[[], tuple[Token, ...]]:
    """The environment's tokens, else the file's as they are at the time of asking."""
    if settings.moonshot_api_key:
        redact.learn(settings.moonshot_api_key)
        fixed = tuple(map(Token.of, settings.moonshot_api_key))
        return lambda: fixed
    return TokenFile(settings.data / NAME).tokens


UNREADABLE = (OSError, ValueError)  # of a token source


def token_faults(tokens: Callable[[], tuple[Token, ...]]) -> list[str]:
    try:
        tokens()
    except UNREADABLE as exc:
        return [f"tokens: {exc}"]
    return []


def while_readable(tokens: Callable[[], tuple[Token, ...]]) -> Callable[[], tuple[Token, ...]]:
    """A file that went bad while the gateway runs is the operator's fault, and never leads to the demo."""

    def read() -> tuple[Token, ...]:
        try:
            return tokens()
        except UNREADABLE as exc:
            emit("misconfigured", logging.ERROR, detail=f"tokens: {exc}")
            raise Unavailable("The gateway's upstream is not available at present.", cause="tokens") from exc

    return read


def http_client(url: str, environ: Mapping[str, str]) -> Client:
    """Our own, unless a proxy stands before the upstream."""
    if proxied(url, environ):
        from kimi_gateway.net.httpx_client import HttpxClient  # httpx2 loads slowly, and is seldom needed

        return HttpxClient()
    return Http1Client()


def upstreams(
    settings: Settings, client: Client, pool: Pool, clock: Callable[[], float]
) -> Callable[[], Upstream]:
    """The platform while there is a token for it, else the demo."""
    timeouts = Timeouts(settings.connect_timeout, settings.first_byte_timeout)
    moonshot = Upstream(Moonshot(client, settings.base_url, timeouts, settings.event_limit), pool)
    demo = Upstream(Demo(), Pool(lambda: (Token("", "demo"),), LocalRecord(), clock))
    return lambda: moonshot if pool.all() else demo


async def start(
    settings: Settings,
    *,
    store: Store | None = None,
    replay: Replay | None = None,
    client: Client | None = None,
    clock: Callable[[], float] = time.time,
) -> Running:
    """Raises CatalogFault, StoreDown; OSError or ValueError where the tokens cannot be read."""
    models = catalog.load(settings.models)
    tokens = token_source(settings)
    tokens()
    record: Record = LocalRecord()
    if store is None:
        store = record = at_home = open_store(settings)
        replay = replay or RememberedReplay(at_home)
    client = client or http_client(settings.base_url, os.environ)
    pool = Pool(while_readable(tokens), record, clock, settings.token_concurrency)
    upstream = upstreams(settings, client, pool, clock)
    gate, ledger = Gate(store, clock, settings.lease), Ledger(store, clock, settings.lease)
    directory = Directory(upstream)
    thoughts = Thoughts(replay or MemoryReplay(), clock)
    gateway = Gateway(gate, ledger, models, directory, thoughts, upstream, settings, clock)
    queries = Queries(gate, store, models, directory, upstream, lambda: token_faults(tokens), clock)
    heart = asyncio.create_task(_beat(ledger, store, settings.lease / 3, clock))
    emit("started", provider=upstream().provider.name, data=str(settings.data))
    if upstream().provider.name == "demo":
        emit("demo", logging.WARNING, note="no upstream token: the built-in demo provider answers")
    if len(pool.all()) > 1:
        checking = asyncio.create_task(directory.check())
        gateway.background.add(checking)
        checking.add_done_callback(gateway.background.discard)
    return Running(gateway, queries, store, client, pool, heart)


async def _beat(ledger: Ledger, store: Store, every: float, clock: Callable[[], float]) -> None:
    """Keeps the leases of what runs, and ends those of processes that died."""
    while True:
        await asyncio.sleep(every)
        try:
            await ledger.renew()
            await store.purge(int(clock()))
        except StoreDown as exc:
            emit("store_down", logging.ERROR, step="renew", detail=str(exc))
