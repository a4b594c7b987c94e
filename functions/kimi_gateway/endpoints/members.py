"""Registration, own keys and payments. Their modules are loaded by the first request that needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from kimi_gateway.accounts.bucket import Buckets
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import Store
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.authentication import authenticate_account
from kimi_gateway.errors import NotFound, RateLimited
from kimi_gateway.http import Request, Response
from kimi_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Members:
    """The buckets bound the registrations that are tried in this process; the store counts the accounts."""

    gate: Gate
    store: Store
    settings: Settings
    clock: Callable[[], float]
    _tried: Buckets = field(default_factory=lambda: Buckets(rate=1 / 60, burst=10))
    _tried_by_all: Buckets = field(default_factory=lambda: Buckets(rate=2, burst=50))

    async def register(self, request: Request) -> Response:
        if self.settings.register == "off":
            raise NotFound("This gateway opens no accounts by itself. Ask the operator for a key.")
        now = self.clock()
        wait = self._tried.take(request.client, now) or self._tried_by_all.take("", now)
        if wait:
            raise RateLimited.passing("Too many registrations at present.", wait)
        from kimi_gateway.endpoints.registration import register

        return await register(self.store, self.settings, request, int(now))

    async def keys(self, request: Request) -> Response:
        caller = await authenticate_account(self.gate, request)
        from kimi_gateway.endpoints import own_keys

        return await own_keys.listed(self.store, caller, int(self.clock()))

    async def make_key(self, request: Request) -> Response:
        caller = await authenticate_account(self.gate, request)
        from kimi_gateway.endpoints import own_keys

        most = self.settings.account_keys
        return await own_keys.made(self.store, caller, await request.body(), most, int(self.clock()))

    async def change_key(self, request: Request, key: str) -> Response:
        caller = await authenticate_account(self.gate, request)
        from kimi_gateway.endpoints import own_keys

        return await own_keys.changed(self.store, caller, key, await request.body(), int(self.clock()))

    async def delete_key(self, request: Request, key: str) -> Response:
        caller = await authenticate_account(self.gate, request)
        from kimi_gateway.endpoints import own_keys

        return await own_keys.deleted(self.store, caller, key, int(self.clock()))

    async def payment(self, request: Request) -> Response:
        secrets = self.settings.payment_secret
        if not secrets:
            raise NotFound("This gateway takes no reports of payments.")
        from kimi_gateway.accounts.packages import with_own
        from kimi_gateway.endpoints.payment_hook import payment

        known = with_own(self.settings.packages)
        return await payment(self.store, secrets, known, request, int(self.clock()))
