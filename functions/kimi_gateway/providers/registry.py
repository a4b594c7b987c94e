"""Resolves a client's model name: the row, the options in the name, and the provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import Model, ProviderName, neutral
from kimi_gateway.catalog.names import NameOptions, parted
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import ModelNotFound
from kimi_gateway.providers.directory import ASKED_ANEW, Directory
from kimi_gateway.providers.provider import Upstream


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
        return self.model.window if self.known else None


class Registry:
    """The provider of each model. A row whose provider is not among `directories` is not found."""

    def __init__(self, catalog: Catalog, directories: Mapping[ProviderName, Directory]) -> None:
        self.catalog = catalog
        self.directories = directories

    @property
    def rows(self) -> dict[str, Model]:
        """The catalog's models by id."""
        return self.catalog.rows

    def row(self, name: str) -> Model:
        """The catalog's row for a name that an upstream told, else a neutral one."""
        return self.catalog.find(name) or neutral(name)

    async def resolve(self, name: str, may_ask: Callable[[], Awaitable[bool]]) -> Resolved:
        """The catalog's row, else a neutral one for a live id. An unknown name fetches the live lists once a
        minute, if `may_ask` allows it. Raises ModelNotFound, InvalidRequest for the id of an agent, and the
        errors of `may_ask`."""
        plain, options = parted(name)
        row = self.catalog.find(plain)
        if row is not None and row.provider in self.directories:
            return Resolved(row, options, self.directories[row.provider], True)
        unknown = self.catalog.unknown(name, plain)
        if isinstance(unknown, ModelNotFound):  # an agent's id is never looked up upstream
            for directory in self.directories.values():
                if not directory.fresh(ASKED_ANEW) and await may_ask():
                    await directory.live(ASKED_ANEW)
        for provider, directory in self.directories.items():
            if plain in directory.listed:
                return Resolved(neutral(plain, provider), options, directory, False)
        raise unknown
