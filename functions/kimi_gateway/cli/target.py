"""What commands work on: the gateway at home, or with --stack NAME one that is deployed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import click

from kimi_gateway import settings
from kimi_gateway.accounts.store import Store
from kimi_gateway.cli.entry import Failed
from kimi_gateway.observe import redact
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite import opening

if TYPE_CHECKING:
    from kimi_gateway.cli.serving import Serving
    from kimi_gateway.cli.stack import Stack
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens.file import TokenFile
    from kimi_gateway.providers.tokens.outages import OutageLog

    class Ledger(Store, OutageLog, Protocol):
        """What every store is: accounts, and the record of bad news."""


KeptIn = Literal["file", "secret"]


class Place(Protocol):
    """`settings` are those that hold there, as far as commands need them. Tokens are kept in `kept_in`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def kept_in(self) -> KeptIn: ...
    def begun(self) -> bool:
        """Whether there is a store; opening it would make one."""
        ...

    def serving(self) -> Serving | None:
        """The server that runs on the data folder, if one does."""
        ...

    def store(self) -> AbstractAsyncContextManager[Ledger]: ...
    def pinned(self) -> tuple[Token, ...]:
        """Tokens that take the place of those that are kept."""
        ...

    def kept(self) -> tuple[Token, ...]: ...
    def keep(self, secrets: Sequence[str]) -> None:
        """These, in place of those that were kept."""
        ...


@dataclass(frozen=True, slots=True)
class Home:
    settings: Settings
    kept_in: ClassVar[KeptIn] = "file"

    def begun(self) -> bool:
        return (self.settings.data / opening.STORE_NAME).exists()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Ledger]:
        from kimi_gateway.storage.sqlite.store import SqliteStore

        # Looking changes nothing: the folder is prepared where there is no store yet.
        path, begun = self.settings.data / opening.STORE_NAME, self.begun()
        if not begun:
            opening.prepare_data(self.settings.data)
        with opening.using(self.settings.data):
            store = SqliteStore(path)
            try:
                yield store
            finally:
                await store.close()

    def serving(self) -> Serving | None:
        from kimi_gateway.cli.serving import servers

        return next(iter(servers(self.settings.data)), None)

    def pinned(self) -> tuple[Token, ...]:
        from kimi_gateway.providers.provider import Token

        redact.learn(self.settings.moonshot_api_key)
        return tuple(map(Token.of, self.settings.moonshot_api_key))

    def kept(self) -> tuple[Token, ...]:
        try:
            return self._file().tokens()
        except ValueError:
            text = (
                f'{self.tokens_file} is not a JSON list of tokens, such as ["sk-…"]. Mend it, or remove it.'
            )
            raise Failed(text, "tokens_file") from None
        except OSError as exc:
            text = f"{self.tokens_file} cannot be read: {exc.strerror}. KIMI_GATEWAY_DATA names its folder."
            raise Failed(text, "data_folder") from None

    def keep(self, secrets: Sequence[str]) -> None:
        opening.prepare_data(self.settings.data)
        self._file().write(secrets)

    def _file(self) -> TokenFile:
        from kimi_gateway.providers.tokens.file import TokenFile

        return TokenFile(self.tokens_file)

    @property
    def tokens_file(self) -> Path:
        from kimi_gateway.providers.tokens.file import NAME

        return self.settings.data / NAME


def _stack_named() -> str | None:
    name = click.get_current_context().find_root().params.get("stack")
    return name if isinstance(name, str) else None


def deployed() -> Stack | None:
    """The stack of --stack, found once a command. Raises Failed where it cannot be worked on."""
    name, root = _stack_named(), click.get_current_context().find_root()
    if name is None:
        return None
    from kimi_gateway.cli.stack import Stack

    if root.obj is None:
        root.obj = Stack.find(name)
    found: Stack = root.obj
    return found


def place() -> Place:
    """Raises SettingsFault at home, Failed for a stack that cannot be worked on."""
    return deployed() or Home(settings.read())


def at_home(what: str) -> Settings:
    """For what only the gateway at home has."""
    if _stack_named() is not None:
        raise click.UsageError(f"{what}; without --stack.")
    return settings.read()
