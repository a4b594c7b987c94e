"""The upstream tokens and the problems of a running gateway, for its operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal

from kimi_gateway.accounts.documents import state_of
from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.values import Account
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.health import Health
from kimi_gateway.errors import GatewayError
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.tokens.outages import MEND, WAIT, Outage

States = list[tuple[str, int, list[Outage]]]


@dataclass(frozen=True, slots=True)
class Problem:
    """In the words of `doctor`: `FAIL` if requests fail, `warn` otherwise."""

    name: str
    status: Literal["FAIL", "warn"]
    detail: str
    fix: str | None = None

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, "detail": self.detail, "fix": self.fix}


async def shown(directory: Directory, fresh: bool) -> dict[str, Any]:
    """The tokens of a provider. If `fresh`, each one's balance is asked for first, where that is possible."""
    if fresh:
        with suppress(UpstreamFailure, GatewayError):
            await directory.balance()
    tokens = [
        {
            "id": id,
            "state": "out" if any(not out.model for out in outages) else "in",
            "in_flight": in_flight,
            "balance": directory.balances.get(id),
            "outages": [
                {"cause": out.cause, "model": out.model or None, "next_try": utc(out.until)}
                for out in outages
            ],
        }
        for id, in_flight, outages in await _states(directory)
    ]
    name = directory.upstream().provider.name
    return {"provider": name, "last_balance": directory.last_balance, "tokens": tokens}


async def _states(directory: Directory) -> States:
    states = getattr(directory.upstream().tokens, "states", None)
    return await states() if states is not None else []


async def problems(
    health: Health, directories: Iterable[Directory], accounts: Sequence[Account], now: int
) -> list[Problem]:
    """The known problems, without a call to an upstream, worst first. Raises StoreDown."""
    found = [Problem("gateway", "FAIL", each, "kimi-gateway doctor") for each in await health.faults()]
    for directory in directories:
        upstream = directory.upstream()
        name = upstream.provider.name
        if name == "demo":
            detail = "there is no upstream token: the built-in demo answers"
            found.append(Problem("tokens", "warn", detail, "kimi-gateway tokens add"))
        troubles = await upstream.tokens.troubles()
        found += [Problem(name, "FAIL", each) for each in troubles]
        for id, _, outages in await _states(directory):
            for each in outages:
                where = f" for {each.model}" if each.model else ""
                detail = f"{id}: {each.cause}{where}, next try {utc(each.until)}"
                found.append(Problem("token", "warn", detail, MEND.get(each.cause, WAIT)))
    if not any(state_of(key, now) == "active" for account in accounts for key in account.keys):
        found.append(Problem("keys", "warn", "no key is active", "kimi-gateway keys create"))
    return sorted(found, key=lambda each: each.status != "FAIL")
