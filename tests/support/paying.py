"""The state machine of the books with packages, payments, refunds, invitations and suspended keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from kimi_gateway.accounts import packages, payments
from kimi_gateway.accounts.store import KeyStale, Store, StoreDown
from kimi_gateway.accounts.values import Account, Grant
from support.books import Books
from support.dying import Dying
from support.store_client import LEASE, NOW

BOUGHT = st.sampled_from(
    [packages.PACKAGES["starter"], packages.Package(7), packages.Package(40, 2), packages.Package(30, 1)]
)
PAYMENTS = st.integers(0, 5)


class Paying(Books):
    """Everything that is booked by a name is booked once, though it is reported again and breaks off."""

    def __init__(self, dynamodb: str = "") -> None:
        super().__init__(dynamodb)
        self.booked_payments: dict[str, int] = {}  # credits by id
        self.refunded: dict[str, int] = {}
        self.guests: list[Account] = []
        self.owners: dict[str, int | None] = {}  # the payment that earned the reward for a guest
        self.refunds: set[tuple[str, int]] = set()  # of guests
        self.reports: set[tuple[str, int]] = set()

    def holder(self) -> Account:
        found = self.ask(lambda store: store.account(self.account, self.now))
        for store in self.stores:  # to look ends late leases in some stores
            self.runner.run(store.purge(self.now))
        self.refill(self.purse)
        self.end_late_leases()
        assert isinstance(found, Account)
        return found

    def add(self, grant: Grant) -> None:
        self.granted += grant.amount
        self.purse.add(grant, self.now)

    def broken_off(self, work: Any, at: int, after: bool) -> Any:
        """The answer of work that is done again after its store was gone from step `at` on."""
        for store in self.stores:
            dying: Any = Dying(store, at, after)
            try:
                self.runner.run(work(dying))
            except StoreDown:
                continue
        return self.ask(work)

    @rule(number=PAYMENTS, bought=BOUGHT)
    def pay(self, number: int, bought: packages.Package) -> None:
        id, holder, grant = f"p{number}", self.holder(), bought.bought(self.now)
        booked = self.ask(lambda store: payments.pay(store, holder, id, grant, self.now))
        assert booked is (id not in self.booked_payments)
        if booked:
            self.booked_payments[id] = grant.amount
            self.add(grant)

    @rule(number=PAYMENTS, bought=BOUGHT, at=st.integers(1, 2), after=st.booleans())
    def pay_and_break_off(self, number: int, bought: packages.Package, at: int, after: bool) -> None:
        id, holder, grant = f"p{number}", self.holder(), bought.bought(self.now)
        self.broken_off(lambda store: payments.pay(store, holder, id, grant, self.now), at, after)
        if id not in self.booked_payments:
            self.booked_payments[id] = grant.amount
            self.add(grant)

    @rule(number=PAYMENTS, at=st.integers(1, 4), after=st.booleans())
    def refund(self, number: int, at: int, after: bool) -> None:
        id, holder = f"p{number}", self.holder()
        taken = self.broken_off(lambda store: payments.refund(store, holder, id, self.now), at, after)
        if id not in self.booked_payments:
            assert taken is None
            return
        if id not in self.refunded:
            self.purse.fold(self.now)
            self.refunded[id] = min(self.booked_payments[id], len(self.purse))
            self.purse.take(self.refunded[id])
            self.purse.count(self.now)
            self.granted -= self.refunded[id]
        assert taken == self.refunded[id]

    @precondition(lambda self: len(self.guests) < 3)
    @rule(at=st.integers(1, 2), after=st.booleans())
    def a_guest_registers(self, at: int, after: bool) -> None:
        guest = self.ask(lambda store: store.create_account("", Grant(10), NOW, self.account))
        assert guest.invited_by == self.account
        self.guests.append(guest)
        self.broken_off(lambda store: payments.registered(store, guest, self.now), at, after)
        self.add(packages.INVITE_REGISTERED)

    @precondition(lambda self: self.guests)
    @rule(which=st.integers(0, 2), number=PAYMENTS, at=st.integers(1, 9), after=st.booleans())
    def a_guest_pays(self, which: int, number: int, at: int, after: bool) -> None:
        guest = self.guests[which % len(self.guests)]

        async def pay(store: Store) -> bool:
            return await payments.pay(store, guest, f"g{number}", Grant(3), self.now)

        self.broken_off(pay, at, after)
        self.reports.add((guest.id, number))
        if self.owners.get(guest.id) is None and (guest.id, number) not in self.refunds:
            self.owners[guest.id] = number
            self.add(packages.INVITE_FIRST_PAYMENT)

    @precondition(lambda self: self.guests)
    @rule(which=st.integers(0, 2), number=PAYMENTS, at=st.integers(1, 9), after=st.booleans())
    def a_guest_is_refunded(self, which: int, number: int, at: int, after: bool) -> None:
        guest = self.guests[which % len(self.guests)]
        self.holder()

        async def refund(store: Store) -> int | None:
            return await payments.refund(store, guest, f"g{number}", self.now)

        taken = self.broken_off(refund, at, after)
        if (guest.id, number) not in self.reports:
            assert taken is None
            return
        self.refunds.add((guest.id, number))
        if self.owners.get(guest.id) == number:
            self.owners[guest.id] = None
            self.purse.fold(self.now)
            back = min(packages.INVITE_FIRST_PAYMENT.amount, len(self.purse))
            self.purse.take(back)
            self.purse.count(self.now)
            self.granted -= back

    @precondition(lambda self: not self.stale)
    @rule(which=st.integers(0, 1), suspended=st.booleans())
    def suspend(self, which: int, suspended: bool) -> None:
        old = self.keys[which]
        changed = self.ask(
            lambda store: store.update_key(old.id, lambda key: replace(key, suspended=suspended), self.now)
        )
        assert changed == replace(old, suspended=suspended, generation=old.generation + 1)
        with pytest.raises(KeyStale):
            self.ask(lambda store: store.admit("suspended", old, 0, self.now + LEASE, self.now))
        self.find_again()

    @precondition(lambda self: self.now < NOW + 10 * 86_400)  # usage is kept for 90 days
    @rule()
    def a_month_passes(self) -> None:
        self.now += 31 * 86_400

    def teardown(self) -> None:
        for guest in self.guests:
            assert self.ask(lambda store, guest=guest: store.account(guest.id, self.now)).credits % 3 == 1
        super().teardown()
