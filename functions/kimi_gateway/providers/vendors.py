"""The vendors of a gateway: for each one that is used a provider, a pool of its own tokens, and a directory.

No vendor ever gets another one's token: each pool reads the tokens under its vendor's name only. Loaded when
a vendor has a token or its name is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import PLATFORM, Model
from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.dataclass import dataclass
from kimi_gateway.net.http import Client, Timeouts
from kimi_gateway.net.http1 import Http1Client, proxied
from kimi_gateway.observe import emit, redact
from kimi_gateway.providers.compatible.provider import Compatible
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.provider import Provider, Token, Upstream
from kimi_gateway.providers.registry import Asked
from kimi_gateway.providers.tokens.kept import secrets, with_base
from kimi_gateway.providers.tokens.outages import OutageLog
from kimi_gateway.providers.tokens.pool import Pool, Renewal
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.providers.conversations import Traces

NOBODY = Token("", "tok_none")  # for a vendor that needs no token


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """The stored tokens by vendor. `renewal` is set if reading them takes a call; `known` tells whether one
    succeeded."""

    kept: Callable[[], Mapping[str, Sequence[str]]]
    renewal: Renewal | None = None
    known: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class Vendors:
    """Implements `registry.Vendors`."""

    catalog: Catalog
    settings: Settings
    client: Client
    kept: KeptTokens
    record: OutageLog
    clock: Callable[[], float]
    traces: Callable[[], Traces] | None = None
    _directories: dict[tuple[str, str], Directory] = field(default_factory=dict)
    _pools: list[Pool] = field(default_factory=list)
    _tokens: dict[tuple[str, str], tuple[tuple[str, ...], tuple[Token, ...]]] = field(default_factory=dict)
    _own_client: Client | None = None

    def __post_init__(self) -> None:
        redact.learn(secrets(self.settings.vendor_tokens))

    def directory(self, model: Model) -> Directory | None:
        vendor = self.catalog.vendor(model.provider)
        if vendor is None:
            return None
        base = vendor.base_of(model.upstream)
        if not self.tokens(vendor, base) and self.kept.known():
            return None
        return self._directory(vendor, base)

    def directories(self) -> Iterator[Directory]:
        for vendor in self.configured():
            yield self._directory(vendor, "")

    def configured(self) -> list[Vendor]:
        """The vendors with a token."""
        names = (*self.catalog.own_vendors, *self.settings.vendor_tokens, *self.kept.kept())
        found = [self.catalog.vendor(name) for name in dict.fromkeys(names) if name != PLATFORM]
        return [vendor for vendor in found if vendor is not None and self.tokens(vendor, "")]

    def owner(self, token: str) -> Asked | None:
        for vendor in self.configured():
            known = next((each for each in self.tokens(vendor, "") if each.secret == token), None)
            if known is not None and known is not NOBODY:
                return Asked(self._directory(vendor, "").upstream().provider, known)
        return None

    def of(self, vendor: str, token: str) -> Asked | None:
        row = self.catalog.vendor(vendor)
        if row is None:
            return None
        base, secret = with_base(token, row.bases)
        known = next((each for each in self.tokens(row, "") if each.secret == secret), None)
        if known is not None:
            return Asked(self._directory(row, "").upstream().provider, known)
        return Asked(self._provider(row, stored=False), Token.of(secret, base))

    def web(self) -> Iterator[Upstream]:
        """The services that keep conversations, with their tokens."""
        for vendor in self.configured():
            if vendor.wire == "kimi-web":
                yield self._directory(vendor, "").upstream()

    def models(self) -> list[Model]:
        found = []
        for vendor in self.configured():
            rows = [vendor.row(known.id) for known in vendor.known]
            found += [row for row in rows if row is not None and self.directory(row) is not None]
        return found

    def tokens(self, vendor: Vendor, base: str) -> tuple[Token, ...]:
        """The current tokens of a vendor, for one of its addresses or for all. A token that names no address
        is left out: it would be sent whole to the first one."""
        if vendor.tokens == "none":
            return (NOBODY,)
        texts = tuple(self.settings.vendor_tokens.get(vendor.id) or self.kept.kept().get(vendor.id, ()))
        known = self._tokens.get((vendor.id, base))
        if known is None or known[0] != texts:
            of = [with_base(text, vendor.bases) for text in texts if not vendor.misnames(text)]
            if len(of) < len(texts):
                from kimi_gateway.catalog.faults import misnamed

                emit("misconfigured", logging.ERROR, detail=f"tokens: {misnamed(vendor)}")
            tokens = tuple(Token.of(secret, name) for name, secret in of if base in ("", name))
            known = self._tokens[vendor.id, base] = (texts, tokens)
        return known[1]

    def _directory(self, vendor: Vendor, base: str) -> Directory:
        directory = self._directories.get((vendor.id, base))
        if directory is None:
            settings = self.settings
            places = [most for most in (settings.token_concurrency, vendor.places) if most]
            provider = self._provider(vendor)
            pool = Pool(
                lambda: self.tokens(vendor, base),
                self.record,
                self.clock,
                min(places, default=0),
                None if vendor.id in settings.vendor_tokens else self.kept.renewal,
            )
            upstream = Upstream(provider, pool)
            directory = Directory(lambda: upstream, prefix=f"{vendor.id}/")
            self._pools.append(pool)
            self._directories[vendor.id, base] = directory
        return directory

    def _provider(self, vendor: Vendor, stored: bool = True) -> Provider:
        """`stored`: for tokens of the operator. For others nothing is remembered."""
        settings = self.settings
        timeouts = Timeouts(settings.connect_timeout, settings.first_byte_timeout)
        of = vendor, self._client_for(vendor), timeouts, settings.event_limit
        if vendor.wire == "openai":
            return Compatible(*of)
        from kimi_gateway.providers.kimi_web.newest import NAME, NewestFile  # few gateways use it
        from kimi_gateway.providers.kimi_web.provider import KimiWeb
        from kimi_gateway.providers.kimi_web.sessions import InMemory

        assert self.traces is not None  # noqa: S101  given where the catalog has such a row
        newest = NewestFile(settings.data / NAME) if stored else InMemory()
        return KimiWeb(*of, newest, self.traces(), self.clock, settings.idle_timeout)

    def _client_for(self, vendor: Vendor) -> Client:
        """The gateway's client, or one over httpx2 if a proxy applies to the vendor only."""
        through = any(proxied(base, os.environ) for base in vendor.bases.values())
        if not through or not isinstance(self.client, Http1Client):
            return self.client
        if self._own_client is None:
            from kimi_gateway.net.httpx_client import HttpxClient

            self._own_client = HttpxClient()
        return self._own_client

    @property
    def pools(self) -> Sequence[Pool]:
        """The pools of the vendors that are used."""
        return self._pools

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        return set[asyncio.Task[None]]().union(*(pool.busy for pool in self._pools))

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()
        if self._own_client is not None:
            await self._own_client.close()
