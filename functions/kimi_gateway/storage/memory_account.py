"""An account of the store in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.budgets import Meter
from kimi_gateway.accounts.values import Balance, Budget, Period, Unit
from kimi_gateway.dataclass import dataclass


@dataclass
class Lease:
    cost: int
    expires: int
    output: int = 0
    counted: tuple[str, ...] = ()  # keys with a bound of requests in flight


@dataclass
class Held:
    """An account in memory."""

    id: str
    name: str
    unlimited: bool
    created: int
    balance: Balance = Balance()
    generation: int = 0
    budgets: tuple[Budget, ...] = ()
    spent: dict[tuple[str, Unit, Period, int], int] = field(default_factory=dict)
    invited_by: str = ""
    funded: dict[str, int] = field(default_factory=dict)  # credits by the name of the change
    leases: dict[str, Lease] = field(default_factory=dict)

    def amount(self, meter: Meter) -> int:
        return self.spent.get(place(meter), 0)

    def book(self, meter: Meter, amount: int) -> None:
        self.spent[place(meter)] = self.amount(meter) + amount

    def ended(self, now: int) -> list[str]:
        return [request for request, lease in self.leases.items() if lease.expires <= now]

    def running(self, key: str) -> int:
        return sum(key in lease.counted for lease in self.leases.values())

    def purge(self, now: int) -> int:
        ended = self.ended(now)
        if ended:
            self.end(ended, now)
        return len(ended)

    def end(self, requests: Iterable[str], now: int) -> None:
        credits = sum(self.leases.pop(request).cost for request in requests)
        self.balance = rules.returned(self.balance, credits, now)


def place(meter: Meter) -> tuple[str, Unit, Period, int]:
    return meter.scope, meter.budget.unit, meter.budget.period, meter.bucket
