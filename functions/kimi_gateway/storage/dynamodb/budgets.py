"""The counters of budgets in an account's hot item. Pure.

B<code><kid or -><bucket>   micro-dollars or tokens that are spent or reserved in a period, of a key or of the
                            account. The period is in the name, so a new one needs no read.
"""

from __future__ import annotations

from itertools import product
from typing import get_args

from kimi_gateway.accounts import budgets
from kimi_gateway.accounts.budgets import BudgetFull, Meter
from kimi_gateway.accounts.values import Admission, Amount, Bound, Key, Period, Unit
from kimi_gateway.storage.dynamodb.item import Image, base36, bucket_of, kid, number
from kimi_gateway.storage.dynamodb.table import Change

_CODES: dict[tuple[Unit, Period], str] = dict(
    zip(product(get_args(Unit), get_args(Period)), "idwmtIDWMT", strict=True)
)
_PERIODS: dict[str, Period] = {code: period for (_, period), code in _CODES.items()}


def name(meter: Meter) -> str:
    code = _CODES[meter.budget.unit, meter.budget.period]
    return f"B{code}{kid(meter.scope) if meter.scope else '-'}{base36(meter.bucket)}"


def amount(image: Image, meter: Meter) -> int:
    return image.number(name(meter))


def fitted(key: Key, bound: Bound | None, image: Image) -> int:
    """The output limit that the budgets allow. Raises BudgetFull."""
    if bound is None:
        return 0
    return budgets.fitted(bound, [(meter, amount(image, meter)) for meter in budgets.meters(key, bound.at)])


def guess(key: Key, bound: Bound | None, image: Image | None) -> int:
    """The output limit to try. The condition decides, so an outdated image refuses nothing."""
    if bound is None or image is None:
        return bound.output if bound is not None else 0
    try:
        return fitted(key, bound, image)
    except BudgetFull:
        return bound.least


def reserve(change: Change, key: Key, bound: Bound | None, output: int) -> None:
    """Add the reservation to an admission; its condition holds every budget."""
    if bound is None:
        return
    for place, meter in enumerate(budgets.meters(key, bound.at)):
        wanted = budgets.reserved(meter, bound, output)
        room = meter.budget.limit - wanted
        change.adds.append(f"#b{place} :b{place}")
        change.names[f"#b{place}"] = name(meter)
        change.values |= {f":b{place}": number(wanted), f":b{place}t": number(room)}
        begins = f"attribute_not_exists(#b{place}) OR " if room >= 0 else ""
        change.conditions.append(f"({begins}#b{place} <= :b{place}t)")


def correct(change: Change, admission: Admission, billed: Amount | None, now: int) -> None:
    """Replace the reservation by what was billed."""
    of = admission.key, admission.bound, admission.output
    for place, (meter, difference) in enumerate(budgets.corrections(*of, billed, now)):
        change.adds.append(f"#b{place} :b{place}")
        change.names[f"#b{place}"] = name(meter)
        change.values[f":b{place}"] = number(difference)


def old(image: Image, now: int) -> list[str]:
    """Counters of periods before the previous one."""
    return [each for each in image.raw if each[0] == "B" and _is_old(each, now)]


def _is_old(counter: str, now: int) -> bool:
    period = _PERIODS[counter[1]]
    last = base36(budgets.bucket(period, now) - 1) if period != "total" else ""
    this = bucket_of(counter[1:])
    return (len(this), this) < (len(last), last)
