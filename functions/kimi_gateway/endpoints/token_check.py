"""Checks whether a token is live, the upstream's or a key of this gateway."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field

from kimi_gateway.accounts import keys, terms
from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import RateLimited, Unavailable
from kimi_gateway.flow.liveness import Liveness, is_platform_key, name_of
from kimi_gateway.http import Request, Response
from kimi_gateway.pivot import fields
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token

CHECKS = 600  # a minute from an address, including known tokens and invalid bodies


@dataclass(slots=True)
class TokenCheck:
    store: Store
    liveness: Liveness
    clock: Callable[[], float]
    _askers: Buckets = field(default_factory=lambda: Buckets(rate=CHECKS / 60, burst=CHECKS))

    async def check_token(self, request: Request) -> Response:
        """Answer POST /token/check, which needs no key. Answers are cached; new questions are limited by
        address. A key of this gateway is looked up each time while it is live, so that a revoked one is
        reported at once. Tokens of kimi.com are of no use here, so they are not live."""
        wait = self._askers.take(request.client, self.clock())
        if wait:
            raise RateLimited("Too many token checks from this address.", retry_after=math.ceil(wait))
        token = fields.json_object(await request.body()).values.get("token")
        fields.string(token, "token")
        return answer({"live": await self._is_live(str(token), request.client)})

    async def _is_live(self, token: str, client: str) -> bool:
        if token.startswith(keys.PREFIX):
            return await self._is_live_key(token, client)
        if not is_platform_key(token):
            return False
        try:
            return await self.liveness.of(Token.of(token), client)
        except UpstreamFailure as failure:
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
