"""A state machine over all stores at once, with a plain account of what must be true."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Coroutine
from copy import deepcopy
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.store import KeyStale, NoCredit, Refused, Store, WindowFull
from kimi_gateway.accounts.values import (
    NEVER,
    Admission,
    Grant,
    Key,
    Limits,
    NewKey,
    Usage,
    UsageRow,
)
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.storage.dynamodb.store import DynamoStore
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.sqlite.store import SqliteStore
from support import dynamo
from support.examples import examples
from support.store_client import LEASE, NOW

OWN = Limits(6, 10, 15)
SIZES = (60, 3_600, 86_400)
AMOUNTS = st.integers(0, 9) | st.integers(0, 10**9)
USED = st.just(Usage()) | st.builds(Usage, *[AMOUNTS] * len(fields(Usage)))
MODELS = st.sampled_from(["m", "kimi-k2.7-code"])


@dataclass
class Purse:
    """Credits one by one, each written as its expiry: what is left and what was spent since the last count.

    What comes back refills the spent ones, latest expiry first; any more is loose, spent first and without
    expiry once the purse is counted again.
    """

    left: list[int] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    loose: int = 0
    expired: int = 0

    def __len__(self) -> int:
        return len(self.left) + self.loose

    def take(self, credits: int) -> None:
        loose = min(credits, self.loose)
        self.loose -= loose
        taken, self.left = self.left[: credits - loose], self.left[credits - loose :]
        self.spent += taken

    def put_back(self, credits: int) -> None:
        for _ in range(credits):
            if self.spent:
                self.left.insert(0, self.spent.pop())
            else:
                self.loose += 1

    def count(self, now: int) -> None:
        self.left += [NEVER] * self.loose
        self.loose, self.spent = 0, []
        self.expired += sum(expiry <= now for expiry in self.left)
        self.left = sorted(expiry for expiry in self.left if expiry > now)

    def fold(self, now: int) -> None:
        if any(expiry <= now for expiry in self.spent + self.left):
            self.count(now)

    def add(self, grant: Grant, now: int) -> None:
        self.fold(now)
        self.count(now)
        self.left += [grant.expires] * grant.amount
        self.count(now)


class Books(RuleBasedStateMachine):
    """One account with two keys in all stores at once, and a plain account of what must be true."""

    def __init__(self, dynamodb: str = "") -> None:
        """Beside the memory store there is SQLite, or DynamoDB at that address."""
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.client = Http1Client()
        other = self.on_dynamodb(dynamodb) if dynamodb else self.on_sqlite()
        self.stores: list[Store] = [MemoryStore(random.Random(1).randrange), other]
        self.now, self.numbers = NOW, itertools.count()
        self.granted, self.consumed, self.errors, self.free = 10, 0, 0, 0
        self.used: list[Usage] = []
        self.causes = Counter[str]()
        self.purse = Purse([NEVER] * 10)
        self.own: dict[str, Limits] = {}  # by key id
        self.leases: dict[str, Admission] = {}
        self.done: list[Admission] = []
        self.admitted: list[tuple[str, int]] = []
        account = self.ask(lambda store: store.create_account("a", Grant(10), NOW))
        self.account: str = account.id
        self.keys = [self.make_key(digest) for digest in ("d0", "d1")]
        self.stale = False

    def on_sqlite(self) -> Store:
        return SqliteStore(Path(self.folder.name, "accounts.db"), random.Random(1).randrange)

    def on_dynamodb(self, url: str) -> Store:
        aws = dynamo.aws(url, self.client)
        table, chance = self.runner.run(dynamo.new_table(aws)), random.Random(1)
        return DynamoStore(table, aws, chance.randrange, forsaken=10**9)  # the others wait to be asked

    def ask(self, call: Any) -> Any:
        """Every store's answer or refusal, which must be one and the same."""
        answers = [self.runner.run(self.outcome(call(store))) for store in self.stores]
        first = answers[0]
        assert all(answer == first for answer in answers), answers
        if isinstance(first, tuple) and first[0] in (KeyStale, NoCredit, WindowFull, BudgetFull):
            raise first[0](*first[1])
        return first

    async def outcome(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await call
        except WindowFull as full:
            return WindowFull, (full.window,)
        except BudgetFull as full:
            return BudgetFull, (full.meter, full.needed)
        except Refused as refused:
            return type(refused), ()

    def make_key(self, digest: str) -> Key:
        made = self.ask(lambda store: store.create_key(NewKey(digest, self.account, limits=OWN), self.now))
        assert isinstance(made, Key)
        self.own[made.id] = OWN
        return made

    def late(self) -> list[str]:
        return [id for id, lease in self.leases.items() if lease.expires <= self.now]

    def refill(self, purse: Purse) -> None:
        purse.fold(self.now)
        purse.put_back(sum(self.leases[id].cost for id in self.late()))

    def end_late_leases(self) -> None:
        self.done += [self.leases.pop(id) for id in self.late()]

    def in_windows(self, key: Key) -> list[int]:
        times = [at for id, at in self.admitted if id == key.id]
        return [sum(at // size == self.now // size for at in times) for size in SIZES]

    @rule(which=st.integers(0, 1), cost=st.integers(0, 4))
    def admit(self, which: int, cost: int) -> None:
        key, id, purse = self.keys[which], f"r{next(self.numbers)}", deepcopy(self.purse)
        purse.fold(self.now)
        lacking = len(purse) < cost
        if lacking:
            self.refill(purse)
        own = self.own[key.id]
        counts, rpm = self.in_windows(key), own.minute or 0
        full = any(count >= limit for count, limit in zip(counts, astuple(own), strict=True))
        try:
            admission = self.ask(lambda store: store.admit(id, key, cost, self.now + LEASE, self.now))
        except KeyStale:
            assert self.stale
        except NoCredit:
            assert len(purse) < cost
        except WindowFull:
            assert full
            assert len(purse) >= cost
        else:
            assert not self.stale
            assert not full
            assert admission.spendable == len(purse) - cost >= 0
            assert admission.window.remaining == rpm - counts[0] - 1
            if lacking:
                self.end_late_leases()
            purse.take(cost)
            self.purse, self.leases[id] = purse, admission
            self.admitted.append((key.id, self.now))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(sorted(self.leases.items())))[1]
        if old.bound is not None and old.bound.at // 60 < self.now // 60 - 1:
            return  # a store may forget the tokens of a minute that is over
        again = self.ask(lambda store: store.admit(old.id, old.key, old.cost, 0, self.now, old.bound))
        assert (again.id, again.cost, again.expires) == (old.id, old.cost, old.expires)
        assert (again.output, again.bound) == (old.output, old.bound)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), end=st.sampled_from(["settle", "release", "fail"]), used=USED, model=MODELS)
    def finish(self, data: st.DataObject, end: str, used: Usage, model: str) -> None:
        id, lease = data.draw(st.sampled_from(sorted(self.leases.items())))
        if end == "settle":
            assert self.ask(lambda store: store.settle(lease, model, used, self.now))
            self.consumed += lease.cost
        else:
            failed = end == "fail"
            cause = data.draw(st.sampled_from(["", "rate", "internal"])) if failed else ""
            assert self.ask(
                lambda store: store.release(lease, model, failed, self.now, usage=used, cause=cause)
            )
            self.purse.fold(self.now)
            self.purse.put_back(lease.cost)
            self.errors += failed
            self.causes[cause] += failed
            self.free += not failed and used != Usage()
        self.used.append(used)
        self.done.append(self.leases.pop(id))

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def finish_again(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.done))
        assert not self.ask(lambda store: store.settle(lease, "m", Usage(), self.now))
        assert not self.ask(lambda store: store.release(lease, "m", True, self.now))

    @rule(seconds=st.sampled_from([1, 59, 60, 600, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(amount=st.integers(0, 9), lasts=st.none() | st.integers(-1, 4_000))
    def grant(self, amount: int, lasts: int | None) -> None:
        grant = Grant(amount) if lasts is None else Grant(amount, self.now + lasts)
        self.ask(lambda store: store.grant(self.account, grant, self.now))
        for (
            store
        ) in self.stores:  # a grant ends late leases in some stores, in others a renewal may still come
            self.runner.run(store.purge(self.now))
        self.granted += amount
        self.purse.add(grant, self.now)
        self.refill(self.purse)
        self.end_late_leases()

    @rule()
    def purge(self) -> None:
        late = self.late()
        assert self.ask(lambda store: store.purge(self.now)) == len(late)
        if late:
            self.refill(self.purse)
            self.end_late_leases()

    @rule()
    def renew(self) -> None:
        until = self.now + LEASE
        known = [*self.leases.values(), *self.done]
        self.ask(lambda store: store.renew(known, until))
        for id, lease in self.leases.items():
            self.leases[id] = replace(lease, expires=max(lease.expires, until))

    @rule()
    def revoke(self) -> None:
        self.ask(lambda store: store.revoke_key(self.keys[1].id, self.now))
        self.stale = True

    @precondition(lambda self: not self.stale)
    @rule(which=st.integers(0, 1), lasts=st.integers(0, 90))
    def rotate(self, which: int, lasts: int) -> None:
        old, digest = self.keys[which], f"d{next(self.numbers)}-rotated"
        changed = self.ask(lambda store: store.rotate_key(old.id, digest, self.now + lasts, self.now))
        former = self.ask(lambda store: store.find_key(old.digest))
        assert former == replace(changed, digest=old.digest, expires=self.now + lasts)
        self.keys[which] = changed
        self.find_again()

    def find_again(self) -> None:
        self.keys = [self.ask(lambda store, key=key: store.find_key(key.digest)) for key in self.keys]

    @precondition(lambda self: not self.stale)
    @rule(which=st.integers(0, 1), rpm=st.integers(1, 9), name=st.sampled_from(["", "laptop", "ñ"]))
    def update(self, which: int, rpm: int, name: str) -> None:
        old, limits = self.keys[which], replace(OWN, minute=rpm)
        changed = self.ask(
            lambda store: store.update_key(
                old.id, lambda key: replace(key, name=name, limits=limits, id="x", revoked=True), self.now
            )
        )
        assert changed == replace(old, name=name, limits=limits, generation=old.generation + 1)
        self.own[old.id] = limits
        for key in self.keys:
            with pytest.raises(KeyStale):
                self.ask(lambda store, key=key: store.admit("stale", key, 0, self.now + LEASE, self.now))
        self.find_again()
        assert self.keys[which] == changed

    @precondition(lambda self: self.stale)
    @rule()
    def replace_the_revoked_key(self) -> None:
        first = self.ask(lambda store: store.find_key(self.keys[0].digest))
        self.keys = [first, self.make_key(f"d{next(self.numbers)}-again")]
        self.stale = False

    @rule()
    def the_books_balance(self) -> None:
        account = self.ask(lambda store: store.account(self.account, self.now))
        for store in self.stores:  # to look ends late leases in some stores, in others it writes nothing
            self.runner.run(store.purge(self.now))
        assert self.ask(lambda store: store.account(self.account, self.now)) == account
        self.refill(self.purse)
        self.end_late_leases()
        spendable = account.credits - account.reserved
        assert spendable == len(self.purse) >= 0
        assert account.reserved == sum(lease.cost for lease in self.leases.values())
        assert (account.consumed, account.expired) == (self.consumed, self.purse.expired)
        assert spendable + account.reserved + account.consumed + account.expired == self.granted
        left = Counter({grant.expires: grant.amount for grant in account.grants})
        assert left == Counter(self.purse.left + [NEVER] * self.purse.loose)

    def teardown(self) -> None:
        try:
            self.the_books_balance()
            rows: list[UsageRow] = self.ask(lambda store: store.usage(0))
            assert sum(row.credits for row in rows) == self.consumed
            assert sum(row.errors for row in rows) == self.errors
            assert sum(row.free for row in rows) == self.free
            causes = Counter[str]()
            for row in rows:
                causes.update(dict(row.causes))
            assert +causes == +Counter({cause: n for cause, n in self.causes.items() if cause})
            for each in fields(Usage):
                counted = sum(getattr(row, each.name) for row in rows)
                assert counted == sum(getattr(used, each.name) for used in self.used), each.name
        finally:
            for store in self.stores:
                self.runner.run(store.close())
            self.runner.run(self.client.close())
            self.runner.close()
            self.folder.cleanup()


LONG = settings(max_examples=examples(100), stateful_step_count=40, report_multiple_bugs=False, deadline=None)
