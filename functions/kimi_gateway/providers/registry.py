"""Resolves a client's model name: the row, the options in the name, and the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import PLATFORM, UNKNOWN_WINDOW, Model, neutral
from kimi_gateway.catalog.names import NameOptions, parted
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import ModelNotFound
from kimi_gateway.providers.directory import ASKED_ANEW, Directory
from kimi_gateway.providers.provider import Upstream


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
