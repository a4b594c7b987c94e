"""The gateway at home as the target of a command: its data folder and environment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.target import Change, Kept, KeptIn
from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe import redact
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite import opening

if TYPE_CHECKING:
    from kimi_gateway.cli.serving import Serving
    from kimi_gateway.cli.target import TargetStore
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens.file import TokenFile


@dataclass(frozen=True, slots=True)
class Home:
    settings: Settings
    kept_in: ClassVar[KeptIn] = "file"

    def begun(self) -> bool:
        return (self.settings.data / opening.STORE_NAME).exists()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[TargetStore]:
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
        from kimi_gateway.providers.provider import Token

        return tuple(map(Token.of, self.all_kept().get(PLATFORM, ())))

    def all_kept(self) -> Kept:
        try:
            return self._file().kept()
        except ValueError:
            text = f'{self.tokens_file} is not a JSON list of tokens, such as ["sk-…"]. Correct or remove it.'
            raise Failed(text, "tokens_file") from None
        except OSError as exc:
            text = f"{self.tokens_file} cannot be read: {exc.strerror}. KIMI_GATEWAY_DATA sets its folder."
            raise Failed(text, "data_folder") from None

    def change_kept(self, change: Change) -> None:
        from kimi_gateway.private_file import changing

        opening.prepare_data(self.settings.data)
        with changing(self.tokens_file):
            if (changed := change(self.all_kept())) is not None:
                self._file().write(changed)

    def _file(self) -> TokenFile:
        from kimi_gateway.providers.tokens.file import TokenFile

        return TokenFile(self.tokens_file)

    @property
    def tokens_file(self) -> Path:
        from kimi_gateway.providers.tokens.file import NAME

        return self.settings.data / NAME
