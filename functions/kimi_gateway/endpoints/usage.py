"""The usage, the balance and the limits of a key, for its holder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.gate import Gate, store_down
from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.store import KeyStale, Store, StoreDown
from kimi_gateway.accounts.usage import DAY, HOUR
from kimi_gateway.accounts.usage_report import counted, described, place, since_of, total, usd
from kimi_gateway.accounts.values import NEVER, Account, Key, Overview, Spent, UsageRow
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_account, authenticate_cached
from kimi_gateway.errors import InvalidKey, InvalidRequest
from kimi_gateway.http import Request, Response

MONTH = 30  # days that /user/credits shows
PAGE, MOST = 100, 1_000  # rows of one page
BY = ("day", "hour", "model", "key")
NAMES = {60: "minute", HOUR: "hour", DAY: "day"}


@dataclass(frozen=True, slots=True)
class UserUsage:
    gate: Gate
    store: Store
    clock: Callable[[], float]
    keep: int  # days that rows are kept

    async def credits(self, request: Request) -> Response:
        """Balance, consumption and usage."""
        now = int(self.clock())
        overview = await self._overview(request, now // DAY * DAY - MONTH * DAY, now)
        return answer(credits_of(overview, now))

    async def status(self, request: Request) -> Response:
        """A line for a status bar, with the limits and budgets in force."""
        now = int(self.clock())
        return answer(status_of(await self._overview(request, now // DAY * DAY, now), now))

    async def usage(self, request: Request) -> Response:
        """Sums by day, hour, model or key of the account. Raises InvalidRequest for a wrong query."""
        key = await authenticate_account(self.gate, request)
        now = int(self.clock())
        page = Page.of(request, now, self.keep)
        try:
            rows = await self.store.usage_sums(page.since, (page.by,), key.account)
            names = await self._names(key, now) if page.by == "key" else None
        except StoreDown as exc:
            raise store_down("usage", exc) from exc
        return answer(page.document(rows, names))

    async def _names(self, key: Key, now: int) -> dict[str, str]:
        account = await self.store.account(key.account, now)
        return {each.id: each.name for each in account.keys}

    async def _overview(self, request: Request, since: int, now: int) -> Overview:
        key = await authenticate_cached(self.gate, request)
        try:
            try:
                return await self.store.overview(key, since, now)
            except KeyStale:  # changed or revoked since it was cached
                key = await authenticate_account(self.gate, request)
                return await self.store.overview(key, since, now)
        except KeyStale as exc:
            raise InvalidKey("Invalid API key provided.") from exc
        except StoreDown as exc:
            raise store_down("overview", exc) from exc


@dataclass(frozen=True, slots=True)
class Page:
    """One page of sums. `after` is the last row of the page before."""

    by: str
    since: int
    limit: int
    after: str

    @classmethod
    def of(cls, request: Request, now: int, keep: int, columns: tuple[str, ...] = BY) -> Page:
        """The page that a query asks for. Raises InvalidRequest."""
        query = request.query
        by = query.get("by") or "day"
        if by not in columns:
            raise InvalidRequest(f"by: must be one of {', '.join(columns)}", param="by")
        try:
            since = since_of(query.get("since") or ("24h" if by == "hour" else "30d"), now)
        except ValueError as exc:
            raise InvalidRequest(f"since: {exc}", param="since") from exc
        limit = query.get("limit") or str(PAGE)
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST):
            raise InvalidRequest(f"limit: must be between 1 and {MOST}", param="limit")
        return cls(by, max(since, now - keep * DAY), int(limit), query.get("after"))

    def document(self, rows: list[UsageRow], names: dict[str, str] | None = None) -> dict[str, Any]:
        later = [row for row in rows if place(row, self.by) > self.after]
        shown = later[: self.limit]
        return {
            "object": "list",
            "by": self.by,
            "since": utc(usages.hour_of(self.since)),
            "data": [described(row, (self.by,), names) for row in shown],
            "has_more": len(later) > len(shown),
            "next": place(shown[-1], self.by) if len(later) > len(shown) else None,
            "total": counted(total(rows)),
        }


def credits_of(overview: Overview, now: int) -> dict[str, Any]:
    """The body of GET /user/credits, with the members of the K2 contract (docs/contract.md, Limits and
    credits): 30 days, 24 hours."""
    account, rows = overview.account, list(overview.usage)
    whole = total(rows)
    answered = whole.requests if whole else 0
    tokens = whole.input + whole.output if whole else 0
    recent = [row for row in rows if row.hour > now // HOUR * HOUR - DAY]
    return {
        "credits_remaining": None if account.unlimited else account.credits,
        "credits_consumed": account.consumed,
        "average_tokens_per_request": round(tokens / answered, 1) if answered else 0,
        "usage": {
            "by_day": [_span(row, "date", "day") for row in usages.summed(rows, ("day",))],
            "by_hour": [_span(row, "hour", "hour") for row in recent],
        },
        "expiring": [
            {"credits": grant.amount, "expires_at": utc(grant.expires)}
            for grant in account.grants
            if grant.expires < NEVER
        ],
    }


def _span(row: UsageRow, name: str, by: str) -> dict[str, Any]:
    tokens = row.input + row.output
    return {name: place(row, by), "credits": row.credits, "requests": row.requests, "tokens": tokens}


def limits_of(overview: Overview) -> list[dict[str, Any]]:
    """The requests that the key may still make, by window."""
    return [
        {
            "window": NAMES[window.size],
            "limit": window.limit,
            "remaining": window.remaining,
            "resets_at": utc(window.reset),
        }
        for window in overview.windows
    ]


def budget_of(spent: Spent) -> dict[str, Any]:
    """A budget in its present period, with what requests in flight have reserved."""
    budget = spent.budget
    amount: Callable[[int], float] = usd if budget.unit == "usd" else int
    return {
        "scope": "key" if spent.scope else "account",
        "unit": budget.unit,
        "period": budget.period,
        "limit": amount(budget.limit),
        "spent": amount(spent.amount),
        "remaining": amount(max(0, budget.limit - spent.amount)),
        "resets_at": None if spent.resets >= NEVER else utc(spent.resets),
    }


def key_of(account: Account) -> dict[str, Any]:
    """The key that asks."""
    (key,) = account.keys
    return {
        "id": key.id,
        "name": key.name,
        "account": key.account,
        "models": list(key.models),
        "expires_at": None if key.expires >= NEVER else utc(key.expires),
        "in_flight": key.in_flight,
        "tokens": key.tokens,
        "search": key.search,
        "files": key.files,
        "manages": key.manages,
    }


def status_of(overview: Overview, now: int) -> dict[str, Any]:
    account = overview.account
    today = total(overview.usage)
    left = {
        unit: min(
            (each.budget.limit - each.amount for each in account.spent if each.budget.unit == unit
             and each.budget.period != "minute"),
            default=None,
        )
        for unit in ("usd", "tokens")
    }  # fmt: skip
    requests = [window.remaining for window in overview.windows if window.size == DAY]
    return {
        "credits": None if account.unlimited else account.credits - account.reserved,
        "left_today": {
            "requests": requests[0] if requests else None,
            "usd": None if left["usd"] is None else usd(max(0, left["usd"])),
            "tokens": None if left["tokens"] is None else max(0, left["tokens"]),
        },
        "resets_at": utc((now // DAY + 1) * DAY),
        "used_today": {
            "requests": today.requests if today else 0,
            "tokens": today.input + today.output if today else 0,
            "cost_usd": usd(today.cost) if today else 0.0,
        },
        "last_cost_usd": usd(today.last_cost) if today else None,
        "last_request_at": utc(today.last) if today else None,
        "limits": limits_of(overview),
        "budgets": [budget_of(each) for each in account.spent],
        "key": key_of(account),
    }
