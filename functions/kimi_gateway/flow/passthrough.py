"""Pass-through: callers send Kimi tokens of their own, `Authorization: Bearer TOKEN1,TOKEN2`.

A conversation stays with one of the tokens, and the next one is tried before the first content. A token is
used if Kimi has accepted it in the last ten minutes; this is known before a body is read. Tokens are in
memory while a request needs them; what is remembered or written names their SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.gate import credentials
from kimi_gateway.accounts.guests import GuestKey, TokenWindows
from kimi_gateway.accounts.values import Admission, Key, Limits
from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.errors import (
    GatewayError,
    InsufficientCredits,
    InvalidKey,
    ModelNotFound,
    PermissionDenied,
    Unavailable,
)
from kimi_gateway.flow.liveness import Liveness, is_platform_key, name_of
from kimi_gateway.http import Headers
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Call, Provider, Token, Upstream
from kimi_gateway.providers.registry import Registry, is_web_token
from kimi_gateway.providers.tokens.local_health import LocalHealth
from kimi_gateway.providers.tokens.outages import LocalOutageLog
from kimi_gateway.providers.tokens.pool import Pool, TokenLease

MOST_TOKENS = 20  # in one request
ACCOUNT = "pass_"  # in front of the accounts and keys of guests
OWN = "own_"  # in front of the ids of their tokens
# Failures of a check that only an accepted token can have.
_ACCEPTED = frozenset(("rate", "overload", "quota", "permission", "model"))
_CHALLENGE = (("www-authenticate", "Bearer"),)


class Given(NamedTuple):
    """One token of a header; `place` counts from 1."""

    place: int
    token: Token


def given(headers: Sequence[str]) -> list[Given]:
    """The tokens in the values of headers, each once. Raises InvalidKey, which names a wrong one by its
    place."""
    texts = [text.strip() for each in headers for text in each.split(",")]
    found = {text: place for place, text in reversed(list(enumerate(filter(None, texts), 1)))}
    if len(found) > MOST_TOKENS:
        raise _refused(f"The request has {len(found)} tokens; at most {MOST_TOKENS} are allowed.")
    for text, place in sorted(found.items(), key=lambda item: item[1]):
        if why := _impossible(text):
            raise _refused(f"Token {place} {why}")
    if not found:
        raise _refused("The request has no token.")
    return [Given(place, _token(text)) for text, place in sorted(found.items(), key=lambda item: item[1])]


def _impossible(text: str) -> str:
    if text.startswith(keys.PREFIX):
        return "is a key of this gateway; send it alone."
    if is_web_token(text):
        return (
            "is a login token of kimi.com, which the official platform does not accept. Create a key at"
            " platform.kimi.ai, or ask the operator for a key of this gateway."
        )
    return "" if is_platform_key(text) else "cannot be a key of the Kimi platform; these begin with sk-."


def _token(secret: str) -> Token:
    return Token(secret, OWN + name_of(secret))


def _refused(text: str) -> InvalidKey:
    return InvalidKey(text, headers=_CHALLENGE)


class PassThrough:
    """Implements `accounts.guests.Guests`. `provider` is the platform, `limits` are the windows of one token,
    `clock` returns unix seconds."""

    def __init__(
        self, provider: Provider, liveness: Liveness, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self.provider = provider
        self.windows = TokenWindows(limits)
        self.liveness = liveness
        self.clock = clock
        self.health = LocalHealth(clock)

    async def key(self, texts: Sequence[str], client: str) -> Key:
        """The account is that of the first token that Kimi accepts. Raises InvalidKey, RateLimited, and
        Unavailable if no token can be checked."""
        tokens = given(texts)
        checks = [self._is_live(token, client) for _, token in tokens]
        found = await asyncio.gather(*checks, return_exceptions=True)
        live = tuple(each.token.id for each, result in zip(tokens, found, strict=True) if result is True)
        if live:
            name = hashlib.sha256(",".join(live).encode()).hexdigest()[:32]
            account = ACCOUNT + live[0].removeprefix(OWN)
            return GuestKey(ACCOUNT + name, "", account, limits=self.windows.limits, token_ids=live)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        raise _not_accepted([place for place, _ in tokens])

    async def _is_live(self, token: Token, client: str) -> bool:
        try:
            return await self.liveness.of(token, client)
        except UpstreamFailure as failure:
            if failure.cause in _ACCEPTED:
                return True
            raise Unavailable(
                "The token cannot be checked at present, because Kimi does not answer.",
                retry_after=1,
                cause=f"upstream_{failure.cause}",
            ) from None

    def admit(self, request: str, key: GuestKey, lease_until: int, now: int) -> Admission:
        """Count the request for one of the tokens. Raises WindowFull."""
        counted, window = self.windows.take(key.token_ids, now)
        return Admission(request, replace(key, counted=counted), 0, lease_until, None, window)

    def registry(self, registry: Registry, key: GuestKey, headers: Headers) -> Registry:
        """The same models, asked for with the tokens of one request. Of live models that no row has, it knows
        those that the operator's list has."""
        upstream = Upstream(self.provider, GuestPool(self, given(credentials(headers)), key))
        directory = registry.directories[PLATFORM].with_upstream(lambda: upstream)
        return Registry(registry.catalog, {PLATFORM: directory})

    def admitted(self, upstream: Upstream, key: GuestKey) -> None:
        """The request was counted, for one token until another one serves it."""
        if isinstance(upstream.tokens, GuestPool):
            upstream.tokens.counted = key.counted

    def shown(self, upstream: Upstream, failure: UpstreamFailure) -> GatewayError | None:
        """The client's error for a failure that is the caller's own matter; None for any other."""
        return upstream.tokens.shown(failure) if isinstance(upstream.tokens, GuestPool) else None


class GuestPool(Pool):
    """The pool of one request. Its tokens are those that were counted for it, and those with room."""

    def __init__(self, passing: PassThrough, tokens: Sequence[Given], key: GuestKey) -> None:
        super().__init__(self._usable, LocalOutageLog(), passing.clock, health=passing.health)
        self.counted = ""
        self._windows = passing.windows
        self._liveness = passing.liveness
        self._given = tokens
        self._tokens = [token for _, token in tokens if token.id in key.token_ids]
        self._served = list[str]()  # ids of tokens that were leased

    async def lease(self, call: Call | None, tried: set[str], only: str | None = None) -> TokenLease:
        lease = await super().lease(call, tried, only)
        id, now = lease.token.id, int(self._clock())
        if id not in self._served:
            if self._served:
                self._windows.count(id, now)
            elif id != self.counted:
                self._windows.move(self.counted, id, now)
            self._served.append(id)
        return lease

    def learned(self, lease: TokenLease, failure: UpstreamFailure | None) -> None:
        secret = lease.token.secret
        if failure is None or failure.cause == "authentication":
            self._liveness.learn(name_of(secret), failure is None)
        if failure is not None:  # a hostile upstream might repeat what it was sent
            failure.detail = failure.detail.replace(secret, "[redacted]")
        super().learned(lease, failure)

    def shown(self, failure: UpstreamFailure) -> GatewayError | None:
        served = [place for place, token in self._given if token.id in self._served]
        match failure.cause:
            case "authentication":
                return _not_accepted(
                    [place for place, token in self._given if self._is_dead(token)] or served
                )
            case "quota":
                text = f"Kimi reports no credit left for {_places(served)} of this request."
                return InsufficientCredits(text, cause="upstream_quota")
            case "permission":
                text = f"Kimi does not permit this to {_places(served)} of this request."
                return PermissionDenied(text, cause="upstream_permission")
            case "model":
                text = f"Kimi does not offer this model to {_places(served)} of this request."
                return ModelNotFound(text, param="model", cause="upstream_model")
        return None

    def _is_dead(self, token: Token) -> bool:
        return self._liveness.known(name_of(token.secret)) is False

    def _usable(self) -> tuple[Token, ...]:
        now = int(self._clock())
        own = (self.counted, *self._served)
        return tuple(
            token
            for token in self._tokens
            if token.id in own or (not self._is_dead(token) and self._windows.has_room(token.id, now))
        )


def _not_accepted(places: Sequence[int]) -> InvalidKey:
    return _refused(f"Kimi does not accept {_places(places)} of this request.")


def _places(places: Sequence[int]) -> str:
    """Such as `token 2`, or `tokens 1, 3`."""
    noun = "token" if len(places) == 1 else "tokens"
    return f"{noun} {', '.join(map(str, places))}"
