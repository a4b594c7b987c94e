"""What the gateway asks of an upstream, whichever it is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kimi_gateway.catalog.models import Model
from kimi_gateway.net import sse
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
    client may see, before the first event. `as_messages`: `payload` is for the platform's Messages endpoint.
    """

    model: Model
    body: dict[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    answered: dict[str, str] = field(default_factory=dict)
    as_messages: bool = False


class Provider(Protocol):
    """Every method raises UpstreamFailure."""

    name: str

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        """The events of one streamed answer, as many at a time as one read brought."""
        ...

    async def models(self, token: Token) -> list[dict[str, Any]]:
        """The upstream's own list, its entries as they are."""
        ...

    async def live(self, token: Token) -> bool:
        """Whether the upstream takes this token."""
        ...

    async def balance(self, token: Token) -> dict[str, float]:
        """`available_balance`, `voucher_balance`, `cash_balance`, in the platform's currency."""
        ...

    async def estimate(self, token: Token, model: Model, messages: list[Any]) -> int:
        """Input tokens of these messages."""
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
