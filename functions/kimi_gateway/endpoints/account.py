"""The upstream balance, and the usage of a key's account."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import Store
from kimi_gateway.accounts.values import Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_account
from kimi_gateway.errors import PermissionDenied, Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure

if TYPE_CHECKING:
    from kimi_gateway.endpoints.usage import UserUsage


@dataclass(frozen=True, slots=True)
class BalanceAndUsage:
    """`keep`: days that usage is kept."""

    gate: Gate
    store: Store
    directory: Directory
    clock: Callable[[], float]
    keep: int

    async def balance(self, request: Request) -> Response:
        """The upstream balance; for an account without credits the last known one."""
        key = await authenticate_account(self.gate, request)
        if not key.see_balance:
            raise PermissionDenied("This key may not see the upstream balance.")
        try:
            data = await self._balance(key)
        except UpstreamFailure as failure:
            raise failure.shown(request=request.id) from failure
        return answer({"code": 0, "data": data, "scode": "0x0", "status": True})

    async def _balance(self, key: Key) -> dict[str, float]:
        if await self.gate.has_credit(key):
            with self.gate.places.held(key.account):
                return await self.directory.balance()
        if self.directory.last_balance is None:
            raise Unavailable(
                "The upstream balance is not known yet, and this account has no credits to ask for it.",
                cause="no_credit",
            )
        return self.directory.last_balance

    async def credits(self, request: Request) -> Response:
        return await self._of_user.credits(request)

    async def usage(self, request: Request) -> Response:
        return await self._of_user.usage(request)

    async def status(self, request: Request) -> Response:
        return await self._of_user.status(request)

    @property
    def _of_user(self) -> UserUsage:
        from kimi_gateway.endpoints.usage import UserUsage  # few requests need it

        return UserUsage(self.gate, self.store, self.clock, self.keep)
