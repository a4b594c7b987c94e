"""The composition root: the only place that knows which store, provider and client are used."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache as once
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kimi_gateway.accounts.files import FileStore
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.usage import DAY
from kimi_gateway.catalog import catalog
from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.account import BalanceAndUsage
from kimi_gateway.endpoints.counts import Counts
from kimi_gateway.endpoints.health import Health
from kimi_gateway.endpoints.models import Models
from kimi_gateway.errors import Unavailable
from kimi_gateway.files.service import FileService
from kimi_gateway.flow.ask import Gateway
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.flow.preparation import FallBack
from kimi_gateway.flow.rounds import Opening, Planner
from kimi_gateway.net.http import Client, Timeouts
from kimi_gateway.net.http1 import Http1Client, proxied
from kimi_gateway.observe import emit, sinks
from kimi_gateway.providers.demo import Demo
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.moonshot.provider import Moonshot
from kimi_gateway.providers.provider import Token, Upstream
from kimi_gateway.providers.registry import Registry
from kimi_gateway.providers.tokens.file import TokenSource, token_source
from kimi_gateway.providers.tokens.outages import LocalOutageLog, OutageLog
from kimi_gateway.providers.tokens.pool import Pool
from kimi_gateway.settings import Settings
from kimi_gateway.storage.cache import Cache
from kimi_gateway.storage.memory_cache import MemoryCache, RememberingCache
from kimi_gateway.storage.sqlite.opening import open_store

if TYPE_CHECKING:
    from kimi_gateway.accounts.batches import BatchStore
    from kimi_gateway.endpoints.batches.api import BatchesApi
    from kimi_gateway.endpoints.files.api import FilesApi
    from kimi_gateway.endpoints.members import Members
    from kimi_gateway.endpoints.token_check import TokenCheck
    from kimi_gateway.flow.liveness import Liveness
    from kimi_gateway.flow.passthrough import PassThrough
    from kimi_gateway.net.aws import Aws
    from kimi_gateway.providers.vendors import Vendors
    from kimi_gateway.storage.answers import AnswerStore
    from kimi_gateway.storage.dynamodb.store import DynamoStore
    from kimi_gateway.storage.sqlite.store import SqliteStore

    class Stores(Store, FileStore, BatchStore, Protocol):
        """The stores: accounts, the records of files and batches, and kept answers."""

        def answers(self) -> AnswerStore: ...

    Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that cost no credit; `edge/routes.py` gives each its path.

    A callable makes its endpoint, and loads its modules, with the first request."""

    models: Models
    counts: Counts
    account: BalanceAndUsage
    token_check: Callable[[], TokenCheck]
    health: Health
    files: Callable[[], FilesApi]
    batches: Callable[[], BatchesApi]
    members: Callable[[], Members]


@dataclass(slots=True)
class Running:
    gateway: Gateway
    endpoints: Endpoints
    store: Store
    client: Client
    pool: Pool
    attachments: FileService
    registry: Registry
    heart: asyncio.Task[None] | None

    async def rest(self, seconds: float) -> None:
        """Wait at most `seconds` for requests' background work, before the process may be frozen."""
        cleaning = self.attachments.busy
        vendors = self.registry.loaded
        pools = self.pool.busy if vendors is None else self.pool.busy | vendors.busy
        if left := self.gateway.background | self.gateway.ledger.late | pools | cleaning:
            await asyncio.wait(left, timeout=seconds)

    async def stop(self) -> None:
        """Stop after streams have ended; background work is finished within bounded time."""
        if self.heart is not None:
            self.heart.cancel()
            await asyncio.gather(self.heart, return_exceptions=True)
        background = self.gateway.background
        if background:
            await asyncio.wait(background, timeout=2)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.attachments.close()
        await self.gateway.ledger.drain(5)
        await self.pool.close()
        if self.registry.loaded is not None:
            await self.registry.loaded.close()
        await self.store.close()
        await self.client.close()


def http_client(url: str, environ: Mapping[str, str], *more: str, connections: int = 1000) -> Client:
    """Our own client, or the one over httpx2 if a proxy applies to the upstream or to `more`."""
    if any(proxied(each, environ) for each in (url, *more)):
        from kimi_gateway.net.httpx_client import HttpxClient  # httpx2 loads slowly and is rarely needed

        return HttpxClient()
    return Http1Client(max(connections, 1000))


def upstreams(
    platform: Moonshot, pool: Pool, known: Callable[[], bool], clock: Callable[[], float]
) -> Callable[[], Upstream]:
    """The platform if it has a token, or while that is not `known`; otherwise the demo."""
    moonshot = Upstream(platform, pool)
    demo = Upstream(Demo(), Pool(lambda: (Token("", "demo"),), LocalOutageLog(), clock))
    return lambda: demo if known() and not pool.all() else moonshot


def _platform(settings: Settings, client: Client) -> Moonshot:
    timeouts = Timeouts(settings.connect_timeout, settings.first_byte_timeout)
    native = settings.anthropic == "native"
    return Moonshot(client, settings.base_url, timeouts, settings.event_limit, native)


async def start(
    settings: Settings,
    *,
    store: Stores | None = None,
    cache: Cache | None = None,
    client: Client | None = None,
    clock: Callable[[], float] = time.time,
    renewing: bool = True,
) -> Running:
    """Start the gateway. Leases need no `renewing` if a lease outlasts every request.

    Raises CatalogFault, StoreDown; OSError or ValueError if the token file cannot be read.
    """
    models = catalog.of_settings(settings)
    client, aws = _clients(settings, client, os.environ)
    source = token_source(settings, aws, clock)
    record: OutageLog = LocalOutageLog()
    if store is None:
        store = record = kept = _store(settings, aws)
        cache = cache or RememberingCache(kept)
    pool = Pool(source.tokens, record, clock, settings.token_concurrency, source.renewal)
    await source.begin()
    platform = _platform(settings, client)
    directory = Directory(upstream := upstreams(platform, pool, source.known, clock))
    liveness = once(partial(_liveness, platform.live if settings.passthrough else directory.is_live, clock))
    passing = _passing(settings, platform, liveness, clock)
    gate = Gate(store, clock, settings.lease, settings.account_concurrency, guests=passing)
    ledger, cache = Ledger(store, clock, settings.lease), cache or MemoryCache()
    conversations = ConversationCache(cache, clock, settings.keep_conversations)
    attachments = FileService(settings, store, cache, upstream, clock)
    registry = _registry(models, settings, client, source, record, clock, directory, attachments)
    attachments.web = registry.web if settings.kimi_web else None
    gateway = Gateway(gate, ledger, registry, conversations, store.answers, settings, clock, attachments)
    gateway.plan, gateway.passing = partial(_planned, settings), passing
    batches = once(partial(_batches, gateway, store, upstream))
    gateway.fall_back = _fall_back(settings, registry, conversations, clock)
    endpoints = Endpoints(
        Models(gate, registry),
        Counts(gate, registry),
        BalanceAndUsage(gate, store, directory, clock, settings.keep_usage),
        once(partial(_token_check, store, liveness, registry, clock)),
        Health(store, upstream, source.faults, clock),
        once(partial(_files, settings, gate, store, upstream, attachments, aws, client)),
        batches,
        once(lambda: _members(gate, store, settings, clock)),
    )
    heart = None
    if renewing:
        steps = ledger.renew, attachments.beat, lambda: batches().following.sweep()
        heart = asyncio.create_task(_beat(store, steps, settings.lease / 3, clock))
    emit("started", provider=upstream().provider.name, data=settings.table or str(settings.data))
    if upstream().provider.name == "demo":
        emit("demo", logging.WARNING, note="no upstream token: the built-in demo provider answers")
    if len(pool.all()) > 1:
        checking = asyncio.create_task(directory.check())
        gateway.background.add(checking)
        checking.add_done_callback(gateway.background.discard)
    return Running(gateway, endpoints, store, client, pool, attachments, registry, heart)


def _fall_back(
    settings: Settings, registry: Registry, conversations: ConversationCache, clock: Callable[[], float]
) -> FallBack | None:
    if not settings.fallbacks:
        return None
    from kimi_gateway.flow.fallback import Fallbacks  # few gateways have chains

    return Fallbacks(settings.fallbacks, registry, conversations, clock, settings.unpriced == "allow")


def _registry(
    models: catalog.Catalog, settings: Settings, client: Client, source: TokenSource, record: OutageLog,
    clock: Callable[[], float], directory: Directory, attachments: FileService,
) -> Registry:  # fmt: skip
    """The platform at once; other vendors when they are used."""
    vendors = partial(_vendors, models, settings, client, source, record, clock, attachments)
    if settings.kimi_web:
        emit("unofficial", logging.WARNING, note=catalog.WEB_WARNING)
    return Registry(models, {PLATFORM: directory}, vendors, partial(_begun, models, settings, source))


def _begun(models: catalog.Catalog, settings: Settings, source: TokenSource) -> bool:
    """Whether a vendor besides the platform has tokens, or an operator's row."""
    with suppress(Unavailable):  # /health reports it
        return bool(settings.vendor_tokens or models.own_vendors or source.kept().keys() - {PLATFORM})
    return False


def _vendors(
    models: catalog.Catalog, settings: Settings, client: Client, source: TokenSource, record: OutageLog,
    clock: Callable[[], float], attachments: FileService,
) -> Vendors:  # fmt: skip
    from kimi_gateway.providers.vendors import KeptTokens, Vendors  # few gateways have any

    kept = KeptTokens(source.kept, source.reading, source.known)
    return Vendors(models, settings, client, kept, record, clock, lambda: attachments.traces)


def _members(gate: Gate, store: Store, settings: Settings, clock: Callable[[], float]) -> Members:
    from kimi_gateway.endpoints.members import Members

    return Members(gate, store, settings, clock)


def _clients(
    settings: Settings, client: Client | None, environ: Mapping[str, str]
) -> tuple[Client, Aws | None]:
    """The client for the upstream, and AWS over the same client if the settings use it."""
    if not (settings.table or settings.secret or settings.uploads):
        return client or http_client(settings.base_url, environ, connections=settings.connections), None
    from kimi_gateway.net import aws, aws_environment

    address = aws.endpoints(environ, aws.region_of(environ))
    more = (address(aws.DYNAMODB), address(aws.SECRETS), address(aws.S3))
    client = client or http_client(settings.base_url, environ, *more, connections=settings.connections)
    return client, aws_environment.of_environment(client, environ)


def _store(settings: Settings, aws: Aws | None) -> SqliteStore | DynamoStore:
    if settings.table and aws is not None:
        from kimi_gateway.storage.dynamodb.store import DynamoStore

        return DynamoStore(settings.table, aws, keep_usage=settings.keep_usage * DAY)
    if sinks:
        from kimi_gateway.storage.timed import timed  # few gateways count

        return timed(open_store(settings))
    return open_store(settings)


def _files(
    settings: Settings,
    gate: Gate,
    store: FileStore,
    upstream: Callable[[], Upstream],
    attachments: FileService,
    aws: Aws | None,
    client: Client,
) -> FilesApi:
    from kimi_gateway.accounts.files import Room
    from kimi_gateway.endpoints.files.api import FilesApi

    room, bucket = Room(settings.account_files, settings.account_file_bytes), None
    if settings.uploads and aws is not None:  # where clients put files that are too large for a request
        from kimi_gateway.net.s3 import Bucket

        bucket = Bucket(aws, client, settings.uploads)
    return FilesApi(gate, store, upstream, room, settings.idle_timeout, attachments, bucket=bucket)


def _batches(gateway: Gateway, store: Stores, upstream: Callable[[], Upstream]) -> BatchesApi:
    from kimi_gateway.endpoints.batches import api

    return api.of_gateway(gateway, store, upstream)


def _liveness(ask: Callable[[Token], Awaitable[bool]], clock: Callable[[], float]) -> Liveness:
    from kimi_gateway.flow.liveness import Liveness

    return Liveness(ask, clock)


def _token_check(
    store: Store, liveness: Callable[[], Liveness], registry: Registry, clock: Callable[[], float]
) -> TokenCheck:
    from kimi_gateway.endpoints.token_check import TokenCheck

    return TokenCheck(store, liveness(), registry.asked, clock)


def _passing(
    settings: Settings, platform: Moonshot, liveness: Callable[[], Liveness], clock: Callable[[], float]
) -> PassThrough | None:
    if not settings.passthrough:
        return None
    from kimi_gateway.accounts.values import Limits
    from kimi_gateway.flow.passthrough import PassThrough

    return PassThrough(platform, liveness(), Limits(*settings.passthrough_limits), clock)


def _planned(settings: Settings, opening: Opening) -> Planner | None:
    """Further rounds for a question that searches the web."""
    if opening.chat.search is None or not settings.search:
        return None
    from kimi_gateway.flow.search import planner  # few requests need it
    from kimi_gateway.flow.search.loop import Bounds

    return planner.plan(Bounds(settings.search_rounds, settings.search_seconds), opening)


async def _beat(store: Store, steps: Sequence[Step], every: float, clock: Callable[[], float]) -> None:
    """Renew the leases and files of running requests, end those of dead processes, and follow batches."""
    while True:
        await asyncio.sleep(every)
        try:
            for step in steps:
                await step()
            await store.purge(int(clock()))
        except StoreDown as exc:
            emit(exc.cause, logging.ERROR, step="renew", detail=str(exc))
