"""Keys that another key makes: never above what their maker has. Pure.

The store also applies the maker's terms when a request is admitted (`Key.line`), so that what the maker loses
later they lose too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, replace
from fnmatch import fnmatchcase

from kimi_gateway.accounts.values import Budget, Key, Limits


def capped(wanted: Key, maker: Key) -> Key:
    """`wanted` with each limit, budget and right lowered to the maker's. It manages no keys itself."""
    pairs = zip(astuple(wanted.limits), astuple(maker.limits), strict=True)
    return replace(
        wanted,
        limits=Limits(*[_lower(own, most) for own, most in pairs]),
        budgets=tuple(_capped(each, maker.budgets) for each in wanted.budgets),
        in_flight=_lower(wanted.in_flight, maker.in_flight),
        tokens=_lower(wanted.tokens, maker.tokens),
        search=wanted.search and maker.search,
        files=wanted.files and maker.files,
        see_balance=wanted.see_balance and maker.see_balance,
        expires=min(wanted.expires, maker.expires),
        operator=wanted.operator and maker.operator,
        manages=False,
        made_by=maker.id,
    )


def _lower(own: int | None, most: int | None) -> int | None:
    """None stays None: then the maker's own limit applies."""
    return own if own is None or most is None else min(own, most)


def _capped(budget: Budget, most: Iterable[Budget]) -> Budget:
    limits = [each.limit for each in most if (each.unit, each.period) == (budget.unit, budget.period)]
    return replace(budget, limit=min([budget.limit, *limits]))


def beyond(models: Iterable[str], maker: Key) -> str | None:
    """The first name or pattern that the maker may not use."""
    if not maker.models:
        return None
    return next(
        (name for name in models if not any(fnmatchcase(name, pattern) for pattern in maker.models)), None
    )
