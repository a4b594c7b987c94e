"""The option --budget, for keys and accounts."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

import click

from kimi_gateway.accounts.values import Budget, Period, Unit

MILLION = 1_000_000
MOST = 10**15
EXAMPLE = "give a budget such as usd/day=5, usd/month=100, tokens/total=2000000, usd/day=none, or 'none'."
CHANGES = dict[tuple[str, str], int | None]  # by unit and period: the limit; None takes the budget away


def budgets_given(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """None if none is given, "none" to take all away, else the changes."""
    if not values:
        return None
    if [value.strip().lower() for value in values] == ["none"]:
        return "none"
    changes: CHANGES = {}
    for value in values:
        name, equals, limit = value.strip().lower().partition("=")
        unit, _, period = name.partition("/")
        if not equals or unit not in get_args(Unit) or period not in set(get_args(Period)) - {"minute"}:
            raise click.BadParameter(EXAMPLE)
        changes[unit, period] = None if limit == "none" else _limit(unit, limit)
    return changes


def _limit(unit: str, text: str) -> int:
    try:
        number = Decimal(text.removeprefix("$")) * (MILLION if unit == "usd" else 1)
    except InvalidOperation:
        raise click.BadParameter(EXAMPLE) from None
    if not number.is_finite() or not 0 <= number <= MOST or number != number.to_integral_value():
        raise click.BadParameter("a budget in USD has at most 6 decimals, one in tokens is a whole number.")
    return int(number)


budget_option = click.option(
    "--budget",
    "budgets",
    multiple=True,
    callback=budgets_given,
    metavar="UNIT/PERIOD=N",
    help="A budget in USD or tokens a day, week, month (UTC) or in total, such as usd/day=5;"
    " may be given several times. 'none' takes all away.",
)


def with_budgets(budgets: Sequence[Budget], given: Any) -> tuple[Budget, ...]:
    """The budgets after the changes; limits of a minute stay."""
    if given == "none":
        return tuple(budget for budget in budgets if budget.period == "minute")
    left: dict[tuple[Unit, Period], int | None] = {
        (budget.unit, budget.period): budget.limit for budget in budgets
    }
    left |= given
    return tuple(Budget(unit, period, limit) for (unit, period), limit in left.items() if limit is not None)
