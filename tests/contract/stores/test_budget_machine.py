"""In any order of steps budgets hold, and every store answers as the memory store does."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from kimi_gateway.accounts.budgets import BudgetFull, Meter, bucket, largest, meters, reserved
from kimi_gateway.accounts.store import KeyStale, WindowFull
from kimi_gateway.accounts.values import (
    Admission,
    Amount,
    Bound,
    Budget,
    Grant,
    Key,
    Limits,
    Usage,
)
from support.books import LONG, OWN
from support.examples import examples
from support.paying import Paying
from support.store_client import LEASE

BUDGETS = (
    (Budget("usd", "day", 900), Budget("tokens", "week", 2_000)),
    (Budget("tokens", "minute", 300), Budget("usd", "total", 2_500), Budget("usd", "month", 2_000)),
)
SHARED = (Budget("usd", "day", 1_200), Budget("tokens", "total", 4_000))


class Budgets(Paying):
    """The same with budgets of both keys and of the account: what is spent never exceeds one."""

    def __init__(self, dynamodb: str = "") -> None:
        super().__init__(dynamodb)
        self.ask(lambda store: store.set_budgets(self.account, SHARED, self.now))
        self.ask(lambda store: store.grant(self.account, Grant(1_000), self.now))
        self.granted += 1_000
        self.purse.add(Grant(1_000), self.now)
        for old, budgets in zip(self.keys, BUDGETS, strict=True):
            self.limit(old, budgets)
        self.find_again()
        self.booked: Counter[Meter] = Counter()

    def limit(self, key: Key, budgets: tuple[Budget, ...]) -> None:
        self.own[key.id] = wide = Limits(10**6, 10**6, 10**6)
        self.ask(
            lambda store: store.update_key(
                key.id, lambda old: replace(old, budgets=budgets, limits=wide), self.now
            )
        )

    @rule(
        which=st.integers(0, 1),
        input=st.integers(0, 300),
        output=st.integers(1, 900),
        calls=st.integers(1, 2),
        prices=st.sampled_from([(500_000, 1_000_000), (0, 0), (333_333, 999_999)]),
        fee=st.sampled_from([0, 0, 300]),
        more=st.booleans(),
    )
    def admit_bounded(
        self,
        which: int,
        input: int,
        output: int,
        calls: int,
        prices: tuple[int, int],
        fee: int,
        more: bool,
    ) -> None:
        """A request of its own, or `more` for one that runs, which counts in no window."""
        key, id = self.keys[which], f"r{next(self.numbers)}"
        least = min(100, output)
        bound = Bound(self.now, input, output, least, input // 2, calls, *prices, fee)
        purse = deepcopy(self.purse)
        if not more:
            purse.fold(self.now)
        metered = meters(key, self.now)
        refused: BudgetFull | None = None
        left = {meter: meter.budget.limit - self.booked[meter] for meter in metered}
        try:
            if more:
                admission = self.ask(lambda store: store.hold(id, key, self.now + LEASE, self.now, bound))
                assert admission.cost == 0
            else:
                admission = self.ask(lambda store: store.admit(id, key, 0, self.now + LEASE, self.now, bound))
        except KeyStale:
            assert self.stale
        except WindowFull:  # after an update, or of a new key
            assert not more
            assert self.own[key.id].day == OWN.day
        except BudgetFull as full:
            refused = full
        else:
            assert least <= admission.output <= output
            fits = [reserved(meter, bound, admission.output) <= left[meter] for meter in metered]
            assert all(fits)
            if admission.output < output:  # as much as the budgets allow
                assert any(reserved(meter, bound, admission.output + 1) > left[meter] for meter in metered)
            for meter in metered:
                self.booked[meter] += reserved(meter, bound, admission.output)
            self.purse, self.leases[id] = purse, admission
            if not more:
                self.admitted.append((key.id, self.now))
        if refused is not None:
            assert reserved(refused.meter, bound, least) > left[refused.meter]
            assert refused.needed == reserved(refused.meter, bound, least)

    def books(self, lease: Admission, billed: Amount | None) -> None:
        if lease.bound is None or billed is None:
            return
        for meter in meters(lease.key, lease.bound.at):
            change = getattr(billed, meter.budget.unit) - reserved(meter, lease.bound, lease.output)
            if bucket(meter.budget.period, self.now) <= meter.bucket:
                self.booked[meter] += change

    @precondition(lambda self: any(lease.bound for lease in self.leases.values()))
    @rule(data=st.data(), end=st.sampled_from(["settle", "release"]), part=st.floats(0, 1))
    def finish_bounded(self, data: st.DataObject, end: str, part: float) -> None:
        bounded = sorted((id, lease) for id, lease in self.leases.items() if lease.bound)
        id, lease = data.draw(st.sampled_from(bounded))
        assert lease.bound is not None
        most = largest(lease.bound, lease.output)
        billed = data.draw(
            st.sampled_from([None, Amount(), most, Amount(int(most.usd * part), int(most.tokens * part))])
        )
        if end == "settle":
            assert self.ask(lambda store: store.settle(lease, "m", Usage(3, 2), self.now, billed))
            self.used.append(Usage(3, 2))
        else:
            assert self.ask(lambda store: store.release(lease, "m", False, self.now, billed))
            self.purse.fold(self.now)
        self.books(lease, billed)
        self.done.append(self.leases.pop(id))

    @rule()
    def budgets_hold(self) -> None:
        self.refill(self.purse)
        for store in self.stores:
            self.runner.run(store.purge(self.now))
        self.end_late_leases()
        account = self.ask(lambda store: store.account(self.account, self.now))
        for scope, budget, amount, resets in account.spent:
            assert amount >= 0
            assert amount <= budget.limit or budget.period == "minute"  # which goes by an estimate
            assert resets > self.now
            at = Meter(scope, budget, bucket(budget.period, self.now))
            assert amount == self.booked[at], at

    def finish(self) -> None:
        """Bounded requests end with `finish_bounded`."""

    def teardown(self) -> None:
        self.budgets_hold()
        super().teardown()


@pytest.mark.hypothesis
def test_budgets_hold_on_sqlite() -> None:
    run_state_machine_as_test(Budgets, settings=LONG)  # type: ignore[no-untyped-call]


@pytest.mark.hypothesis
def test_budgets_hold_on_dynamodb(dynalite_url: str) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Budgets(dynalite_url), settings=settings(LONG, max_examples=examples(16))
    )
