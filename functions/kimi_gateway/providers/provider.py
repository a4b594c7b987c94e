"""What the gateway asks of an upstream, whichever it is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kimi_gateway.catalog.models import Model
from kimi_gateway.http import Headers
from kimi_gateway.net import sse
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.failures import UpstreamFailure


@dataclass(frozen=True, slots=True)
class Token:
    """One upstream token. Only `id`, a hash, may be shown."""

    secret: str = field(repr=False)
    id: str = ""

    @classmethod
    def of(cls, secret: str) -> Token:
        return cls(secret, "tok_" + hashlib.sha256(secret.encode()).hexdigest()[:8])


@dataclass(frozen=True, slots=True)
class Call:
    """One chat request as it goes upstream; `payload` is `body` in bytes.

    `headers` are the client's that pass on; the provider adds to `answered` those of the answer that a
    client may see, before the first event. `free` names the functions whose arguments are a free text, as
    they are sent. `only` is the id of the one token that may serve it: its files are in that account.
    """

    model: Model
    body: dict[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    answered: dict[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    only: str | None = None


class Costly(Exception):
    """A chat takes more work than is allowed before its admission."""


class Entries(Protocol):
    """What one account has kept of its earlier answers (storage/cache.py)."""

    async def look(self, names: Sequence[str]) -> dict[str, bytes]: ...

    async def keep(self, entries: Mapping[str, bytes]) -> None: ...


class Missing(Protocol):
    """What the model should find in the history of its own earlier answers, and the client dropped."""

    async def look_up(self, entries: Entries) -> None: ...

    def restore(self) -> int:
        """Puts what was found into the prepared body, or what the model takes in its place. The number of
        characters that were added."""
        ...


class Tap(Protocol):
    """Sees an answer's chunks before the client does."""

    def add(self, chunks: list[Chunk]) -> None:
        """The next ones; it may change them."""
        ...

    def kept(self) -> dict[str, bytes]:
        """After the last chunk: entries that the account's next request may need."""
        ...


class Prepared(Protocol):
    """A chat as a model takes it. It is rendered by `call`, so that `missing` and the window come first."""

    @property
    def body(self) -> dict[str, Any]:
        """The pivot for the upstream. Its output limit may be lowered until it is rendered."""
        ...

    @property
    def ignored(self) -> tuple[str, ...]:
        """The fields that the upstream does not get, by the client's names."""
        ...

    @property
    def missing(self) -> Missing | None: ...

    def call(self) -> Call:
        """The time it takes grows with the body."""
        ...

    def taps(self) -> list[Tap]:
        """New ones for the answer, in the order in which they are to see it."""
        ...


class Provider(Protocol):
    """Every method but `prepare` raises UpstreamFailure."""

    name: str

    def prepare(self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False) -> Prepared:
        """Pure. `headers` are the client's; those that the upstream may see are taken from them. Raises
        InvalidRequest, in the pivot's names, for what the model cannot take, and Costly where it should be
        done `cheaply` and is not."""
        ...

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        """The events of one streamed answer, as many at a time as one read brought."""
        ...

    async def models(self, token: Token) -> list[dict[str, Any]]:
        """The upstream's own list, its entries as they are."""
        ...

    async def live(self, token: Token) -> bool:
        """Whether the upstream takes this token."""
        ...


# What a provider may offer besides. Whoever uses one asks for it with `isinstance`.


@runtime_checkable
class Balances(Protocol):
    async def balance(self, token: Token) -> dict[str, float]:
        """`available_balance`, `voucher_balance`, `cash_balance`, in the platform's currency. Raises
        UpstreamFailure."""
        ...


@runtime_checkable
class Estimates(Protocol):
    async def estimate(self, token: Token, model: Model, messages: list[Any]) -> int:
        """Input tokens of these messages. Raises UpstreamFailure."""
        ...


class Lease(Protocol):
    """A token for one attempt."""

    @property
    def token(self) -> Token: ...

    def answered(self) -> None:
        """The upstream serves the token, whatever was known against it."""
        ...

    def end(self, failure: UpstreamFailure | None = None) -> None:
        """To be called whatever happens. Without a failure it says nothing of the token."""
        ...


class Tokens(Protocol):
    """The pool of upstream tokens."""

    async def troubles(self) -> list[str]:
        """Why requests probably fail now, without a call upstream."""
        ...

    def lease(self, call: Call | None, tried: set[str]) -> Awaitable[Lease]:
        """A token, one that is not in `tried` (ids) where there is one. Raises UpstreamFailure if none."""
        ...

    def another(self, tried: set[str], model: str) -> Awaitable[bool]:
        """Whether a token is in, for this upstream model, that is not among `tried` (ids)."""
        ...

    def all(self) -> tuple[Token, ...]: ...

    def learn(self, token: Token, model: str, failure: UpstreamFailure | None) -> None:
        """What was found out about a token without a lease."""
        ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with its tokens."""

    provider: Provider
    tokens: Tokens
