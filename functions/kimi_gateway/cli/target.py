"""The target of a command: the gateway at home, or with --stack NAME a deployed one."""

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
        """A store with accounts and the outages of tokens."""


KeptIn = Literal["file", "secret"]


class Place(Protocol):
    """`settings` are the target's, as far as commands need them. `kept_in` says where tokens are stored."""

    @property
    def settings(self) -> Settings: ...
    @property
    def kept_in(self) -> KeptIn: ...
    def begun(self) -> bool:
        """Whether a store exists. Opening would create one."""
        ...

    def serving(self) -> Serving | None:
        """The server that runs on the data folder; None if there is none."""
        ...

    def store(self) -> AbstractAsyncContextManager[Ledger]: ...
    def pinned(self) -> tuple[Token, ...]:
        """Tokens from the environment, which take precedence over stored ones."""
        ...

    def kept(self) -> tuple[Token, ...]: ...
    def keep(self, secrets: Sequence[str]) -> None:
        """Store these tokens instead of the stored ones."""
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

        # Reading an existing store changes nothing; the folder is prepared only for a new one.
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
            text = f'{self.tokens_file} is not a JSON list of tokens, such as ["sk-…"]. Correct or remove it.'
            raise Failed(text, "tokens_file") from None
        except OSError as exc:
            text = f"{self.tokens_file} cannot be read: {exc.strerror}. KIMI_GATEWAY_DATA sets its folder."
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
    """The stack of --stack, looked up once; None without --stack. Raises Failed if it cannot be used."""
    name, root = _stack_named(), click.get_current_context().find_root()
    if name is None:
        return None
    from kimi_gateway.cli.stack import Stack

    if root.obj is None:
        root.obj = Stack.find(name)
    found: Stack = root.obj
    return found


def place() -> Place:
    """The target. Raises SettingsFault at home, Failed if the stack cannot be used."""
    return deployed() or Home(settings.read())


def at_home(what: str) -> Settings:
    """Settings of the gateway at home. Raises UsageError with --stack; `what` begins its text."""
    if _stack_named() is not None:
        raise click.UsageError(f"{what}; run it without --stack.")
    return settings.read()
