"""The consequences of an account's image for a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts.store import KeyStale, NoCredit
from kimi_gateway.accounts.values import Admission, Balance, Bound, Key
from kimi_gateway.storage.dynamodb import budgets as meters
from kimi_gateway.storage.dynamodb.item import Image, Lease
from kimi_gateway.storage.dynamodb.steps import TOGETHER


def some(ended: Mapping[str, Lease]) -> dict[str, Lease]:
    return dict(list(ended.items())[:TOGETHER])


def credits(ended: Mapping[str, Lease]) -> int:
    return sum(lease.cost for lease in ended.values())


def as_it_is(image: Image, cost: int, now: int) -> tuple[Balance, dict[str, Lease]]:
    """The balance without expired grants, and if necessary with the credits of ended leases. Raises
    NoCredit."""
    if image.unlimited:
        return image.balance, {}
    balance = rules.folded(image.balance, now)
    if balance.spendable >= cost:
        return balance, {}
    ended = image.ended(now)
    if rules.returned(balance, credits(ended), now).spendable < cost:
        raise NoCredit
    now_ended = some(ended)
    return rules.returned(balance, credits(now_ended), now), now_ended


def known(request: str, key: Key, image: Image, now: int, bound: Bound | None) -> Admission | None:
    """The admission of a request that has a lease; None if it has none. Raises KeyStale."""
    if lease := image.lease(request, key):
        return admission(request, key, lease, image, now, bound)
    if key.generation != image.generation or not image.has_key(key.id):
        raise KeyStale
    return None


def admission(
    request: str, key: Key, lease: Lease, image: Image, now: int, bound: Bound | None = None
) -> Admission:
    spendable = None if image.unlimited else image.number("b")
    standing = image.standing(key, now, rules.rank((spendable or 0) + lease.cost))
    window = rules.tightest(rules.minute_window(*each) for each in standing)
    tokens = budgets.token_window(key, bound, lambda meter: meters.amount(image, meter))
    return Admission(request, key, lease.cost, lease.expires, spendable, window, bound, lease.output, tokens)
