"""Pure arithmetic of budgets: periods, the largest cost of a request, and the rest of a budget for it.

A budget counts what the vendor may bill. Admission reserves the largest possible amount; settlement replaces
it by the true one. A reservation whose request is lost stays spent, because the vendor may have billed it. So
spent ≤ limit holds at any time. The budget of a minute is a rate limit: it reserves an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import get_args

from kimi_gateway.accounts.store import Refused
from kimi_gateway.accounts.values import NEVER, Amount, Bound, Budget, Key, Period, Spent, Unit, Window
from kimi_gateway.dataclass import dataclass

MILLION = 1_000_000
DAY = 86_400
LEAST_OUTPUT = 256  # tokens; a smaller answer is not worth its input


class BudgetFull(Refused):
    """A budget leaves too little for the request. `needed` is what the request needs at least."""

    def __init__(self, meter: Meter, needed: int) -> None:
        super().__init__(f"{meter.budget} until {meter.resets}")
        self.meter = meter
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Meter:
    """One budget in one period. `scope` is the key's id, or "" for a budget of the account."""

    scope: str
    budget: Budget
    bucket: int

    @property
    def resets(self) -> int:
        return end(self.budget.period, self.bucket)


@lru_cache(4_096)
def bucket(period: Period, at: int) -> int:
    """The number of the period that contains `at` (unix seconds). Weeks begin on Monday."""
    match period:
        case "minute":
            return at // 60
        case "day":
            return at // DAY
        case "week":
            return (at // DAY + 3) // 7
        case "month":
            day = datetime.fromtimestamp(at, UTC)
            return day.year * 12 + day.month - 1
        case "total":
            return 0


def end(period: Period, bucket: int) -> int:
    """The unix second at which the period ends."""
    match period:
        case "minute":
            return (bucket + 1) * 60
        case "day":
            return (bucket + 1) * DAY
        case "week":
            return ((bucket + 1) * 7 - 3) * DAY
        case "month":
            year, month = divmod(bucket + 1, 12)
            return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())
        case "total":
            return NEVER


def meters(key: Key, at: int) -> tuple[Meter, ...]:
    own = [(each.id, budget) for each in key.line for budget in each.budgets]
    return tuple(
        Meter(scope, budget, bucket(budget.period, at))
        for scope, budget in (*own, *(("", budget) for budget in key.shared))
    )


def largest(bound: Bound, output: int) -> Amount:
    """The largest cost of a request whose calls have `output` tokens each."""
    micro = bound.input * (bound.input_price or 0) + output * (bound.output_price or 0)
    return Amount(-(-micro // MILLION) * bound.calls + bound.fee, (bound.input + output) * bound.calls)


def reserved(meter: Meter, bound: Bound, output: int) -> int:
    if meter.budget.period == "minute":
        return min(bound.estimate, meter.budget.limit)
    return int(getattr(largest(bound, output), meter.budget.unit))


def affordable(bound: Bound, unit: Unit, left: int) -> int:
    """Output tokens of each call that `left` pays for; negative if it does not pay for the input."""
    if unit == "tokens":
        return left // bound.calls - bound.input
    rest = (left - bound.fee) // bound.calls * MILLION - bound.input * (bound.input_price or 0)
    if bound.output_price:
        return rest // bound.output_price
    return bound.output if rest >= 0 else -1


def fitted(bound: Bound, counters: Iterable[tuple[Meter, int]]) -> int:
    """The output limit of each call that all budgets allow, given what is spent of each.

    Raises BudgetFull with the budget that resets last, if one leaves fewer tokens than `bound.least`.
    """
    output, full = bound.output, []
    for meter, spent in counters:
        left = meter.budget.limit - spent
        if meter.budget.period == "minute":
            if reserved(meter, bound, output) > left:
                full.append(meter)
            continue
        most = affordable(bound, meter.budget.unit, left)
        if most < bound.least:
            full.append(meter)
        output = min(output, most)
    if full:
        last = max(full, key=lambda meter: meter.resets)
        raise BudgetFull(last, reserved(last, bound, bound.least))
    return output


def corrections(key: Key, bound: Bound | None, output: int, billed: Amount | None, now: int) -> Corrections:
    """By how much each counter changes when the request ends; None keeps the whole reservation. Counters of
    periods that are over stay as they are."""
    if bound is None or billed is None:
        return ()
    found = []
    for meter in meters(key, bound.at):
        change = _counted(meter, billed) - reserved(meter, bound, output)
        if change and bucket(meter.budget.period, now) <= meter.bucket:
            found.append((meter, change))
    return tuple(found)


def _counted(meter: Meter, billed: Amount) -> int:
    if meter.budget.period == "minute" and billed.minute is not None:
        return billed.minute
    return int(getattr(billed, meter.budget.unit))


Corrections = Sequence[tuple[Meter, int]]


def packed(budgets: Iterable[Budget]) -> str:
    """The stored form: "usd/day:5000000 tokens/total:100"."""
    return " ".join(f"{each.unit}/{each.period}:{each.limit}" for each in budgets)


def unpacked(text: str) -> tuple[Budget, ...]:
    found = []
    for word in text.split():
        name, _, limit = word.partition(":")
        unit, _, period = name.partition("/")
        if unit not in get_args(Unit) or period not in get_args(Period):
            raise ValueError(word)
        found.append(Budget(unit, period, int(limit)))  # type: ignore[arg-type]
    return tuple(found)


def spent(
    keys: Iterable[Key], shared: Iterable[Budget], now: int, amount: Callable[[Meter], int]
) -> tuple[Spent, ...]:
    """The present periods of all budgets of an account: its own, then those of its keys."""
    scopes = [("", tuple(shared)), *((key.id, key.budgets) for key in keys)]
    found = [
        Meter(scope, budget, bucket(budget.period, now)) for scope, budgets in scopes for budget in budgets
    ]
    return tuple(Spent(meter.scope, meter.budget, amount(meter), meter.resets) for meter in found)


def token_window(key: Key, bound: Bound | None, amount: Callable[[Meter], int]) -> Window | None:
    """The minute of the key's tokens after a request, or of the account's."""
    if bound is None:
        return None
    for meter in meters(key, bound.at):
        if meter.budget.period == "minute" and meter.budget.unit == "tokens":
            limit = meter.budget.limit
            return Window(limit, max(0, limit - amount(meter)), meter.resets)
    return None
