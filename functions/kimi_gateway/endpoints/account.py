"""The upstream balance, and an account's credits and usage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.values import NEVER, Account, Key, UsageRow
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_account
from kimi_gateway.errors import PermissionDenied, Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure

HOUR, DAY = 3_600, 86_400


@dataclass(frozen=True, slots=True)
class BalanceAndCredits:
    gate: Gate
    store: Store
    directory: Directory
    clock: Callable[[], float]

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
        key = await authenticate_account(self.gate, request)
        now = int(self.clock())
        try:
            account = await self.store.account(key.account, now)
            rows = await self.store.usage(now // DAY * DAY - 30 * DAY, key.account)
        except StoreDown as exc:
            raise Unavailable("The account cannot be read at present.", cause=exc.cause) from exc
        return answer(credits_of(account, rows, now))


def credits_of(account: Account, rows: list[UsageRow], now: int) -> dict[str, Any]:
    """The body of GET /user/credits (docs/contract.md, Limits and credits): 30 days, 24 hours."""
    requests = sum(row.requests for row in rows)
    total = sum(row.input + row.output for row in rows)
    recent = [row for row in rows if row.hour > now // HOUR * HOUR - DAY]
    return {
        "credits_remaining": None if account.unlimited else account.credits,
        "credits_consumed": account.consumed,
        "average_tokens_per_request": round(total / requests, 1) if requests else 0,
        "usage": {
            "by_day": _summed(rows, DAY, "date", "%Y-%m-%d"),
            "by_hour": _summed(recent, HOUR, "hour", "%Y-%m-%dT%H:00:00Z"),
        },
        "expiring": [
            {
                "credits": grant.amount,
                "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(grant.expires)),
            }
            for grant in account.grants
            if grant.expires < NEVER
        ],
    }


def _summed(rows: list[UsageRow], span: int, name: str, form: str) -> list[dict[str, Any]]:
    spans: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row.hour):
        start = row.hour // span * span
        entry = spans.setdefault(
            start, {name: time.strftime(form, time.gmtime(start)), "credits": 0, "requests": 0, "tokens": 0}
        )
        entry["credits"] += row.credits
        entry["requests"] += row.requests
        entry["tokens"] += row.input + row.output
    return list(spans.values())
