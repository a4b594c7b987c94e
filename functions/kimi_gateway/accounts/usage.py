"""Usage as it is counted: the causes of errors, the row of one request, and the sum of two rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from kimi_gateway.accounts.values import Admission, Usage, UsageRow

HOUR, DAY = 3_600, 86_400
KEPT = 90  # days that rows are kept, if the operator does not say otherwise
MOST_TOKENS = 10**9  # of one kind in one request; a larger count is an upstream's fault
MOST_MONEY = 10**10  # micro-dollars of one request
# Causes of errors as they are counted; errors with other causes are counted without one.
CAUSES = (
    "rate", "overload", "timeout", "server", "connect", "broken", "authentication", "quota", "permission",
    "model", "invalid", "content_filter", "context", "bound", "files", "deadline", "shutdown", "store",
    "internal",
)  # fmt: skip
_NAMED: Mapping[str, str] = {
    "max_request": "deadline",
    "attachments": "files",
    "fetch": "files",
    "invalid_request": "invalid",
    "context_length_exceeded": "context",
    "store_down": "store",
    "store_throttled": "store",
    "internal_error": "internal",
    "tokens": "authentication",
}
BY = ("hour", "day", "account", "key", "model")
SUMMED = (
    "requests", "errors", "free", "input", "output", "cached", "written", "reasoning", "fees", "cost",
    "saved", "credits",
)  # fmt: skip


def cause_of(cause: str) -> str:
    """One of CAUSES for the cause of a request's error (errors.GatewayError), or ""."""
    name = cause.partition(":")[0].removeprefix("upstream_")
    name = _NAMED.get(name, name)
    return name if name in CAUSES else ""


_TOKENS = attrgetter("input", "output", "cached", "written", "reasoning")
_MONEY = attrgetter("fees", "cost", "saved")


def added(one: Usage, other: Usage) -> Usage:
    pairs = zip((*_TOKENS(one), *_MONEY(one)), (*_TOKENS(other), *_MONEY(other)), strict=True)
    return Usage(*[mine + more for mine, more in pairs])


def bounded(usage: Usage) -> Usage:
    """Usage with counts that a sum can hold, whatever an upstream said."""
    tokens, money = _TOKENS(usage), _MONEY(usage)
    if min(*tokens, *money) >= 0 and max(tokens) <= MOST_TOKENS and max(money) <= MOST_MONEY:
        return usage
    kept = [max(0, min(each, MOST_TOKENS)) for each in tokens]
    return Usage(*kept, *[max(0, min(each, MOST_MONEY)) for each in money])


def hour_of(at: int) -> int:
    return at - at % HOUR


def settled(admission: Admission, model: str, usage: Usage, cost: int, now: int) -> UsageRow:
    """The row of an answered request. `cost` is in credits."""
    return _row(admission, model, usage, now, requests=1, credits=cost)


def released(
    admission: Admission, model: str, error: bool, usage: Usage, cause: str, now: int
) -> UsageRow | None:
    """The row of a request that was not charged; None if there is nothing to count."""
    if error:
        row = _row(admission, model, usage, now, errors=1)
        return replace(row, causes=((cause, 1),)) if cause else row
    return None if usage == Usage() else _row(admission, model, usage, now, free=1)


def _row(
    admission: Admission,
    model: str,
    usage: Usage,
    now: int,
    requests: int = 0,
    errors: int = 0,
    free: int = 0,
    credits: int = 0,
) -> UsageRow:
    return UsageRow(
        hour=hour_of(now),
        account=admission.key.account,
        key=admission.key.id,
        model=model,
        requests=requests,
        errors=errors,
        input=usage.input,
        output=usage.output,
        credits=credits,
        last=now,
        cached=usage.cached,
        written=usage.written,
        reasoning=usage.reasoning,
        fees=usage.fees,
        cost=usage.cost,
        saved=usage.saved,
        free=free,
        last_cost=usage.cost,
    )


def summed(rows: Iterable[UsageRow], by: Sequence[str]) -> list[UsageRow]:
    """Rows summed by some of BY, sorted by them."""
    spans = {"hour": HOUR, "day": DAY}
    span = min([spans[name] for name in by if name in spans], default=0)
    sums: dict[tuple[int, str, str, str], UsageRow] = {}
    for row in rows:
        place: dict[str, Any] = {
            name: getattr(row, name) if name in by else "" for name in ("account", "key", "model")
        }
        hour = row.hour // span * span if span else 0
        at = (hour, place["account"], place["key"], place["model"])
        sums[at] = both(sums[at], row) if at in sums else replace(row, hour=hour, **place)
    return [sums[at] for at in sorted(sums)]


def both(one: UsageRow, other: UsageRow) -> UsageRow:
    """The sum of two rows, in the place of the first. The later one has the last request."""
    later = other if other.last >= one.last else one
    causes = dict(one.causes)
    for cause, errors in other.causes:
        causes[cause] = causes.get(cause, 0) + errors
    summed = {name: getattr(one, name) + getattr(other, name) for name in SUMMED}
    return replace(
        one, **summed, last=later.last, last_cost=later.last_cost, causes=tuple(sorted(causes.items()))
    )
