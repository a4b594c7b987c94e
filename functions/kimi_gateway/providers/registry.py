"""Resolves a client's model name: the row, the options in the name, and the provider."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kimi_gateway.catalog.catalog import WEB, Catalog
from kimi_gateway.catalog.models import PLATFORM, UNKNOWN_WINDOW, Model, neutral
from kimi_gateway.catalog.names import NameOptions, parted
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest, ModelNotFound
from kimi_gateway.providers.directory import ASKED_ANEW, Directory
from kimi_gateway.providers.provider import Provider, Token, Upstream

if TYPE_CHECKING:
    from kimi_gateway.providers.tokens.pool import Pool

LONGEST_TOKEN = 8 * 1024  # characters


@dataclass(frozen=True, slots=True)
class Asked:
    """A token of a vendor, and the vendor's provider."""

    provider: Provider
    token: Token


class Vendors(Protocol):
    """The vendors that are rows of data (providers/vendors.py)."""

    def directory(self, model: Model) -> Directory | None:
        """The directory for a vendor's model; None if the vendor has no token for it."""
        ...

    def directories(self) -> Iterator[Directory]:
        """The directories of all vendors with a token; one for each."""
        ...

    def models(self) -> list[Model]:
        """The known models of all vendors with a token."""
        ...

    def owner(self, token: str) -> Asked | None:
        """The vendor of a token that the operator has stored."""
        ...

    def of(self, vendor: str, token: str) -> Asked | None:
        """A token for a vendor, whether it is stored or not; None if there is no such vendor."""
        ...

    def web(self) -> Iterator[Upstream]:
        """The services that keep conversations, with their tokens."""
        ...

    @property
    def pools(self) -> Sequence[Pool]:
        """The pools of the vendors that are used."""
        ...

    @property
    def busy(self) -> set[asyncio.Task[None]]:
        """Tasks of the pools that still run."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """The result for a name. `options`: selected by the name besides the model. `known`: the catalog has the
    model; otherwise only the upstream's live list has it."""

    model: Model
    options: NameOptions
    directory: Directory
    known: bool

    @property
    def upstream(self) -> Upstream:
        """The provider with its current tokens. Raises Unavailable if they cannot be read."""
        return self.directory.upstream()

    @property
    def window(self) -> int | None:
        """The window in tokens; None if it is not known."""
        return self.model.window if self.known and self.model.window < UNKNOWN_WINDOW else None

    @property
    def vendor(self) -> str:
        """The name in errors for clients."""
        return "Kimi" if self.model.provider == PLATFORM else self.model.provider


# Tokens of kimi.com: JWTs, for which the platform has no use, and the cookie with one.
_OF_WEB = re.compile(r"(?:.*kimi-auth=)?eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_.-]*")


def is_web_token(token: str) -> bool:
    """Whether the text can be a refresh token or an access token of kimi.com."""
    return len(token) <= LONGEST_TOKEN and _OF_WEB.match(token) is not None


class Registry:
    """The provider of each model. `directories` has one for each provider with code of its own; others are
    vendors, which `vendors` loads when one is asked for. `begun`: some have tokens already. `loaded` are the
    vendors once they are used."""

    def __init__(
        self,
        catalog: Catalog,
        directories: Mapping[str, Directory],
        vendors: Callable[[], Vendors] | None = None,
        begun: Callable[[], bool] = lambda: False,
    ) -> None:
        self.catalog = catalog
        self.directories = directories
        self._load = vendors
        self._begun = begun
        self.loaded: Vendors | None = None

    @property
    def rows(self) -> dict[str, Model]:
        """The catalog's models by id, and the known ones of vendors with a token."""
        rows = self.catalog.rows
        vendors = self.vendors
        return rows if vendors is None else {row.id: row for row in vendors.models()} | rows

    @property
    def vendors(self) -> Vendors | None:
        """None while no vendor has a token and none was asked for."""
        return self._vendors() if self.loaded is not None or self._begun() else None

    def _vendors(self) -> Vendors | None:
        if self.loaded is None and self._load is not None:
            self.loaded = self._load()
        return self.loaded

    def web(self) -> Iterator[Upstream]:
        """The services that keep conversations, with their tokens."""
        yield from self.vendors.web() if self.vendors is not None else ()

    def asked(self, token: str, vendor: str) -> Asked | None:
        """Who may be asked about a token: the named vendor, else the one whose stored token it is, else the
        web service if it is on and the token has its form. None for the platform's. Raises InvalidRequest."""
        if vendor and vendor not in self.directories:
            vendors = self._vendors()
            found = None if vendors is None else vendors.of(vendor, token)
            if found is None:
                raise InvalidRequest(f"vendor: {vendor[:80]!r} is not a vendor here", param="vendor")
            return found
        vendors = None if vendor else self.vendors
        if vendors is None:
            return None
        return vendors.owner(token) or (vendors.of(WEB, token) if is_web_token(token) else None)

    @property
    def all_directories(self) -> list[Directory]:
        """The directories of the providers, and of the vendors with a token."""
        vendors = self.vendors
        return [*self.directories.values(), *(vendors.directories() if vendors is not None else ())]

    def _directory(self, row: Model) -> Directory:
        """Raises ModelNotFound if the row's vendor has no token."""
        directory = self.directories.get(row.provider)
        if directory is None and (vendors := self._vendors()) is not None:
            directory = vendors.directory(row)
        if directory is None:
            raise ModelNotFound(
                f"The model {row.id[:80]!r} is not available: the gateway has no token for {row.provider}.",
                param="model",
            )
        return directory

    def _has(self, row: Model) -> bool:
        """Whether a row was written for the model; other models of a vendor have its neutral one."""
        if row.provider in self.directories or row.id in self.catalog.rows:
            return True
        vendor = self.catalog.vendor(row.provider)
        return vendor is not None and vendor.model(row.upstream) is not None

    def row(self, name: str) -> Model:
        """The catalog's row for a name that an upstream told, else a neutral one."""
        return self.catalog.find(name) or neutral(name)

    async def resolve(self, name: str, may_ask: Callable[[], Awaitable[bool]]) -> Resolved:
        """The catalog's row, else a neutral one for a live id. An unknown name fetches the live lists once a
        minute, if `may_ask` allows it. Raises ModelNotFound, InvalidRequest for the id of an agent, and the
        errors of `may_ask`."""
        plain, options = parted(name)
        row = self.catalog.find(plain)
        if plain not in self.catalog.rows and any(plain in each.listed for each in self.directories.values()):
            row = None  # a model of the upstream, whatever alias fits its name
        if row is not None:
            directory = self._directory(row)
            return Resolved(row, options, directory, self._has(row))
        unknown = self.catalog.unknown(name, plain)
        if isinstance(unknown, ModelNotFound):  # an agent's id is never looked up upstream
            for directory in self.directories.values():
                if not directory.fresh(ASKED_ANEW) and await may_ask():
                    await directory.live(ASKED_ANEW)
        for provider, directory in self.directories.items():
            if plain in directory.listed:
                return Resolved(neutral(plain, provider), options, directory, False)
        raise unknown
