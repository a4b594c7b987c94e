"""The interface of upstreams."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

from kimi_gateway.catalog.models import Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.http import Headers
from kimi_gateway.net import sse
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.failures import UpstreamFailure


@dataclass(frozen=True, slots=True)
class Token:
    """One upstream token. Only `id`, a hash, may be shown. `base` names the vendor's address that it belongs
    to, if there are several."""

    secret: str = field(repr=False)
    id: str = ""
    base: str = ""

    @classmethod
    def of(cls, secret: str, base: str = "") -> Token:
        return cls(secret, "tok_" + hashlib.sha256(secret.encode()).hexdigest()[:8], base)


@dataclass(frozen=True, slots=True)
class Call:
    """One chat request for the upstream; `payload` is `body` in bytes.

    `headers` are the client's headers that are passed on. The provider adds to `answered` the answer's
    headers that a client may see, before the first event. `free` names functions with free text, as they are
    sent. `only`: the id of the one token that may serve the call, because its files are in that account;
    `movable`: they can be uploaded again with another token. `streamed`: the client gets each part at once.
    """

    model: Model
    body: dict[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    answered: dict[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    only: str | None = None
    movable: bool = False
    streamed: bool = True


class Costly(Exception):
    """A chat takes more work than is allowed before admission."""


class Entries(Protocol):
    """The cache entries of one account (storage/cache.py)."""

    async def look(self, names: Sequence[str]) -> dict[str, bytes]: ...

    async def keep(self, entries: Mapping[str, bytes]) -> None: ...


class Missing(Protocol):
    """Parts of the model's earlier answers that the client dropped from the history."""

    async def look_up(self, entries: Entries) -> None: ...

    def restore(self) -> int:
        """Put the parts into the prepared body, or the model's placeholder for them. Returns the number of
        added characters."""
        ...


class Tap(Protocol):
    """Sees an answer's chunks before the client does."""

    def add(self, chunks: list[Chunk]) -> None:
        """The next chunks; it may change them."""
        ...

    def kept(self) -> dict[str, bytes]:
        """After the last chunk: cache entries for the account's next request."""
        ...


class Prepared(Protocol):
    """A chat adapted to its model. `call` renders it, so that `missing` and the window come first."""

    @property
    def body(self) -> dict[str, Any]:
        """The pivot for the upstream. Its output limit may be lowered until it is rendered."""
        ...

    @property
    def ignored(self) -> tuple[str, ...]:
        """The client's names of fields that are not sent upstream."""
        ...

    @property
    def missing(self) -> Missing | None: ...

    def call(self) -> Call:
        """Render the call. The time grows with the body."""
        ...

    def taps(self) -> list[Tap]:
        """New taps for the answer, in their order."""
        ...


class Provider(Protocol):
    """Every method except `prepare` raises UpstreamFailure."""

    name: str

    def prepare(self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False) -> Prepared:
        """Adapt a chat to a model, without I/O. `headers` are the client's; the provider takes those that it
        passes on. Raises InvalidRequest, in the pivot's names, if the model cannot do it; Costly if it must
        be done `cheaply` and takes more work."""
        ...

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        """The events of one streamed answer, in batches as they were read. No batch is empty."""
        ...

    async def models(self, token: Token) -> list[dict[str, Any]]:
        """The entries of the upstream's model list, unchanged."""
        ...

    async def live(self, token: Token) -> bool:
        """Whether the upstream accepts this token."""
        ...


# Optional capabilities of a provider. Users check for one with `isinstance`.


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
        """The upstream accepted the token, whatever was known against it."""
        ...

    def end(self, failure: UpstreamFailure | None = None) -> None:
        """End the lease; always call it. Without a failure nothing is learned about the token."""
        ...


class Tokens(Protocol):
    """The pool of upstream tokens."""

    async def troubles(self) -> list[str]:
        """Reasons why requests probably fail now, without a call upstream."""
        ...

    def lease(self, call: Call | None, tried: set[str], only: str | None = None) -> Awaitable[Lease]:
        """A token, if possible one that is not in `tried` (ids). `only`: without a call, the id of the one
        token that will do. Raises UpstreamFailure if there is none."""
        ...

    def another(self, tried: set[str], model: str) -> Awaitable[bool]:
        """Whether a token is available for this upstream model that is not in `tried` (ids)."""
        ...

    def all(self) -> tuple[Token, ...]: ...

    def learn(self, token: Token, model: str, failure: UpstreamFailure | None) -> None:
        """Learn about a token without a lease."""
        ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with its tokens."""

    provider: Provider
    tokens: Tokens
