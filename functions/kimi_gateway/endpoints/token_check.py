"""Checks whether a token is live, the upstream's or a key of this gateway."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import field

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.bucket import BoundedDict, Buckets, SlidingWindow
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import RateLimited, Unavailable
from kimi_gateway.http import Request, Response, sendable
from kimi_gateway.pivot import fields
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token

CHECKED = 600  # seconds for which an answer is reused
CHECKS_KEPT = 10_000
CHECKS = 600  # a minute from an address, including known tokens and invalid bodies
ASKING = 32  # token checks upstream at a time, in each process
LONGEST_TOKEN = 4_096


@dataclass(slots=True)
class TokenCheck:
    store: Store
    directory: Directory
    clock: Callable[[], float]
    _checks: BoundedDict[tuple[float, bool]] = field(default_factory=lambda: BoundedDict(CHECKS_KEPT))
    _askers: Buckets = field(default_factory=lambda: Buckets(rate=CHECKS / 60, burst=CHECKS))
    _unknown_tokens: SlidingWindow = field(default_factory=lambda: SlidingWindow(most=60, seconds=60))
    _strangers: Buckets = field(default_factory=lambda: Buckets(rate=10, burst=300))  # over all addresses
    _asking: int = 0

    async def check_token(self, request: Request) -> Response:
        """Answer POST /token/check, which needs no key. Answers are cached; new questions are limited by
        address."""
        now = self.clock()
        wait = self._askers.take(request.client, now)
        if wait:
            raise RateLimited("Too many token checks from this address.", retry_after=math.ceil(wait))
        token = fields.json_object(await request.body()).values.get("token")
        fields.string(token, "token")
        digest = hashlib.sha256(str(token).encode()).hexdigest()
        asked_at, live = self._checks.get(digest, (-math.inf, False))
        if now - asked_at >= CHECKED:
            wait = self._unknown_tokens.take(request.client, now)
            if wait:
                raise RateLimited("Too many unknown tokens from this address.", retry_after=math.ceil(wait))
            live = await self._is_live(str(token))
            self._checks[digest] = (now, live)
        elif live and str(token).startswith(keys.PREFIX):
            live = await self._is_live(str(token))  # a revoked key is reported at once
        return answer({"live": live})

    async def _is_live(self, token: str) -> bool:
        if token.startswith(keys.PREFIX):
            try:
                key = await self.store.find_key(keys.digest(token))
            except StoreDown as exc:
                raise Unavailable("The token cannot be checked at present.", cause=exc.cause) from exc
            return key is not None and not key.revoked
        if len(token) > LONGEST_TOKEN or not sendable(token):
            return False
        wait = 1.0 if self._asking >= ASKING else self._strangers.take("", self.clock())
        if wait:
            raise RateLimited("Too many token checks at present.", retry_after=math.ceil(wait))
        self._asking += 1
        try:
            return await self.directory.is_live(Token.of(token))
        except UpstreamFailure as failure:
            raise Unavailable("The token cannot be checked at present.", cause=failure.cause) from failure
        finally:
            self._asking -= 1
