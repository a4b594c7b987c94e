"""The client's errors about limits, credits, budgets and models."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import UTC, datetime

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.limit_headers import CREDITS, window_headers
from kimi_gateway.accounts.values import NEVER, Bound, Budget, Key, Window
from kimi_gateway.errors import (
    BudgetExceeded,
    GatewayError,
    InsufficientCredits,
    PermissionDenied,
    RateLimited,
)

_WINDOWS = {60: "minute", 3_600: "hour", 86_400: "day"}  # by length in seconds; the names of Limits
_EACH = {"day": "a day", "week": "a week", "month": "a month", "total": "in total"}


def over_budget(full: BudgetFull, now: float) -> BudgetExceeded | RateLimited:
    """403 for a budget, 429 for a minute's tokens."""
    meter = full.meter
    budget, whose = meter.budget, "this key" if meter.scope else "this account"
    if budget.period == "minute":
        wait = max(1, math.ceil(meter.resets - now))
        return RateLimited(
            f"The limit of {budget.limit} tokens a minute of {whose} is reached. Try again in {wait} s.",
            retry_after=wait,
            cause="tokens_per_minute",
        )
    needed = shown(Budget(budget.unit, budget.period, full.needed))
    resets = "It does not reset."
    if meter.resets < NEVER:
        resets = f"It resets at {datetime.fromtimestamp(meter.resets, UTC).strftime('%Y-%m-%d %H:%M UTC')}."
    return BudgetExceeded(
        f"The budget of {shown(budget)} {_EACH[budget.period]} of {whose} leaves too little: this request may"
        f" take {needed}. {resets} Shorten the input, lower the output limit, or ask the operator for more."
    )


def rate_limited(window: Window, now: float, key: Key) -> RateLimited:
    wait = max(1, math.ceil(window.reset - now))
    name = _WINDOWS[window.size]
    own = any(getattr(each.limits, name) == window.limit for each in key.line)
    whose = "this key's own limit" if own else "this account's limit at its present balance"
    if isinstance(key, GuestKey):
        whose = "the limit of a caller's own Kimi tokens"
    noun = "request" if window.limit == 1 else "requests"
    return RateLimited(
        f"{window.limit} {noun} per {name} reached ({whose}). Try again in {wait} s.",
        retry_after=wait,
        headers=window_headers(window),
    )


def too_many_free(wait: float) -> RateLimited:
    return RateLimited.passing("Too many free calls with this key (at most 10 a second, 60 at once).", wait)


def refused_too_often(wait: float) -> RateLimited:
    text = "Too many requests with this key that were refused before they cost anything. Mend them."
    return RateLimited.passing(text, wait, "refused_too_often")


def too_many_names(wait: float) -> RateLimited:
    text = "Too many new Idempotency-Keys of this account (at most 2 a second, 100,000 at once)."
    return RateLimited.passing(text, wait, "idempotency_keys")


def no_credit() -> InsufficientCredits:
    text = "The account has no credits left. Ask the operator for more."
    return InsufficientCredits(text, headers=((CREDITS, "0"),))


def too_few_credits(cost: int) -> InsufficientCredits:
    return InsufficientCredits(
        f"A request to this model costs {cost} credits, and the account has fewer. Choose another model, or"
        " ask the operator for more."
    )


def too_many_in_flight(limit: int) -> RateLimited:
    noun = "request" if limit == 1 else "requests"
    return RateLimited(
        f"This key has {limit} {noun} in flight, as many as it may have. Wait for one to end and try again.",
        retry_after=1,
        cause="key_in_flight",
    )


def not_allowed(key: Key) -> PermissionDenied:
    return PermissionDenied(
        f"This API key may not use this model. It may use: {', '.join(key.models)}.", param="model"
    )


def of_terms(key: Key, models: Collection[str], bound: Bound | None) -> GatewayError | None:
    """Why the key may not use a model with these names."""
    if models and not terms.allows(key, models):
        return not_allowed(key)
    if bound is None or bound.input_price is not None:
        return None
    return unpriced() if any(each.unit == "usd" for each in (*key.budgets, *key.shared)) else None


def unpriced() -> BudgetExceeded:
    return BudgetExceeded(
        "The price of this model is not known in USD, so it cannot be used with a budget in USD. Choose"
        " another model, or ask the operator to add its price, or to give the key a budget in tokens."
    )


def shown(budget: Budget) -> str:
    """The limit with its unit."""
    if budget.unit == "tokens":
        return f"{budget.limit:,} tokens"
    return f"${budget.limit / 1_000_000:,.6f}".rstrip("0").rstrip(".")
