"""The upstream balance."""

from __future__ import annotations

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.values import Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_account
from kimi_gateway.errors import PermissionDenied, Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure


@dataclass(frozen=True, slots=True)
class UpstreamBalance:
    gate: Gate
    directory: Directory

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
