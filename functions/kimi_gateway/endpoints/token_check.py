"""Checks whether a token is live, the upstream's or a key of this gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from kimi_gateway.accounts import keys, terms
from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import InvalidRequest, RateLimited, Unavailable
from kimi_gateway.flow.liveness import Liveness, is_platform_key, name_of
from kimi_gateway.http import Request, Response
from kimi_gateway.pivot import fields
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.registry import Asked

CHECKS = 600  # a minute from an address, including known tokens and invalid bodies


@dataclass(slots=True)
class TokenCheck:
    """`asked` gives the vendor of a token: the provider to ask, and the token in its form."""

    store: Store
    liveness: Liveness
    asked: Callable[[str, str], Asked | None]
    clock: Callable[[], float]
    _askers: Buckets = field(default_factory=lambda: Buckets(rate=CHECKS / 60, burst=CHECKS))

    async def check_token(self, request: Request) -> Response:
        """Answer POST /token/check, which needs no key. Answers are cached; new questions are limited by
        address. A key of this gateway is looked up each time while it is live, so that a revoked one is
        reported at once. A token of another vendor goes to that vendor only: the body names it as `vendor`,
        or the operator has stored the token."""
        wait = self._askers.take(request.client, self.clock())
        if wait:
            raise RateLimited.passing("Too many token checks from this address.", wait)
        body = fields.json_object(await request.body()).values
        token, vendor = body.get("token"), body.get("vendor") or ""
        fields.string(token, "token")
        fields.string(vendor, "vendor")
        return answer({"live": await self._is_live(str(token), str(vendor), request.client)})

    async def _is_live(self, token: str, vendor: str, client: str) -> bool:
        if token.startswith(keys.PREFIX):
            return await self._is_live_key(token, client)
        asked = self.asked(token, vendor)
        if asked is None and not is_platform_key(token):
            return False
        try:
            if asked is None:
                return await self.liveness.of(Token.of(token), client)
            return await self.liveness.of(asked.token, client, asked.provider)
        except UpstreamFailure as failure:
            if failure.cause == "model":  # it has no request that tells
                raise InvalidRequest(f"vendor: {failure.detail}", param="vendor") from failure
            raise _unchecked(failure.cause) from failure

    async def _is_live_key(self, token: str, client: str) -> bool:
        """Raises RateLimited and Unavailable."""
        name = name_of(token)
        known = self.liveness.known(name)
        if known is False or not keys.well_formed(token):
            return False
        if known is None:
            self.liveness.admit(client)
        try:
            key = await self.store.find_key(keys.digest(token))
        except StoreDown as exc:
            raise _unchecked(exc.cause) from exc
        live = key is not None and terms.refusal(key, self.clock()) is None
        self.liveness.learn(name, live)
        return live


def _unchecked(cause: str) -> Unavailable:
    return Unavailable("The token cannot be checked at present.", cause=cause)
