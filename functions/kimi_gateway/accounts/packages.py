"""Packages of credits, and the rewards of invitations, as data."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, datetime

from kimi_gateway.accounts.values import NEVER, Grant
from kimi_gateway.dataclass import dataclass

INVITE_REGISTERED = Grant(50)
INVITE_FIRST_PAYMENT = Grant(500)


@dataclass(frozen=True, slots=True)
class Package:
    """Credits that are sold together. `months`: how long they last, None for ever. `cents`: the seed's price
    in USD, None if it is agreed on."""

    credits: int
    months: int | None = None
    cents: int | None = None

    def bought(self, now: int) -> Grant:
        return Grant(self.credits, NEVER if self.months is None else months_later(now, self.months))


PACKAGES = {
    "starter": Package(500, cents=499),
    "standard": Package(5_000, months=1, cents=2_999),
    "premium": Package(20_000, months=1, cents=5_999),
}


def with_own(own: Iterable[tuple[str, int, int | None]]) -> dict[str, Package]:
    """The packages with the operator's own: names, credits and months."""
    return PACKAGES | {name: Package(credits, months) for name, credits, months in own}


def months_later(now: int, months: int) -> int:
    """The same day and UTC time `months` later, or the last day of a shorter month."""
    start = datetime.fromtimestamp(now, UTC)
    years, month = divmod(start.month - 1 + months, 12)
    year, month = start.year + years, month + 1
    day = min(start.day, monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())
