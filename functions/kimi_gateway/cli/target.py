"""The interface between a command and its target: the gateway at home or a deployed stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from kimi_gateway.accounts.store import Store
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.accounts.files import FileStore
    from kimi_gateway.cli.serving import Serving
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens.outages import OutageLog
    from kimi_gateway.storage.moving import Mover

    class TargetStore(Store, OutageLog, FileStore, Protocol):
        """A store with accounts, the outages of tokens and the records of files."""

        def moving(self) -> Mover: ...


KeptIn = Literal["file", "secret"]
Kept = Mapping[str, Sequence[str]]  # stored tokens, by vendor
Change = Callable[[Kept], Kept | None]  # None: they stay as they are


class Target(Protocol):
    """`settings` are its own, as far as commands need them. `kept_in` says where tokens are stored."""

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

    def store(self) -> AbstractAsyncContextManager[TargetStore]: ...
    def pinned(self) -> tuple[Token, ...]:
        """Tokens from the environment, which take precedence over stored ones."""
        ...

    def kept(self) -> tuple[Token, ...]:
        """The stored tokens of the platform."""
        ...

    def all_kept(self) -> Kept:
        """All stored tokens, by vendor."""
        ...

    def change_kept(self, change: Change) -> None:
        """Store what `change` makes of the stored tokens. It is called again if another command has changed
        them meanwhile, so no change is lost. Raises Failed, and errors of `change`."""
        ...
