"""What a caller that is cancelled began to write is written all the same, or undone."""

from __future__ import annotations

import asyncio

import pytest

from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Admission, Amount, Bound, Budget, Key, NewKey, Usage
from kimi_gateway.storage.memory import MemoryStore
from support.pooling import on_a_loop

ADMISSION = Admission("r", Key("k", "d", "a"), 1, 0, 9, None)


class SlowStore:
    """Settles once it may; `fails` times it is down first."""

    def __init__(self, fails: int = 0) -> None:
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self.fails = fails
        self.settled: list[str] = []

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        self.asked.set()
        await self.may.wait()
        if self.fails:
            self.fails -= 1
            raise StoreDown("down")
        self.settled.append(admission.id)
        return len(self.settled) == 1


@pytest.mark.parametrize("fails", [0, 1])
def test_a_settlement_outlives_the_cancellation_of_its_caller(fails: int) -> None:
    @on_a_loop
    async def settled() -> SlowStore:
        store = SlowStore(fails)
        ledger = Ledger(store, lambda: 0.0, 60)  # type: ignore[arg-type]
        caller = asyncio.create_task(ledger.settle(ADMISSION, "m", Usage(1, 1)))
        await store.asked.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        store.may.set()
        while ledger.late:
            await asyncio.wait(ledger.late)
        assert store.settled == ["r"]
        return store

    settled()


class Doubtful(MemoryStore):
    """Loses the answer of the first `hold`, which it applied or not; or never gives it."""

    def __init__(self, applied: bool, silent: bool) -> None:
        super().__init__()
        self.applied, self.silent, self.asked = applied, silent, 0
        self.waits = asyncio.Event()

    async def hold(self, request: str, key: Key, lease_until: int, now: int, bound: Bound) -> Admission:
        self.asked += 1
        if self.asked > 1:
            return await super().hold(request, key, lease_until, now, bound)
        if self.applied:
            await super().hold(request, key, lease_until, now, bound)
        self.waits.set()
        if self.silent:
            await asyncio.sleep(60)
        raise StoreDown("down")


@pytest.mark.parametrize("silent", [False, True], ids=["down", "cancelled"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_further_reservation_that_may_be_written_is_undone(applied: bool, silent: bool) -> None:
    @on_a_loop
    async def undone() -> None:
        store = Doubtful(applied, silent)
        account = await store.create_account("a", None, 0)
        budgets = (Budget("usd", "day", 100),)
        key = await store.create_key(NewKey("d", account.id, budgets=budgets), 0)
        ledger = Ledger(store, lambda: 0.0, 60)
        task = asyncio.create_task(ledger.hold(key, Amount(70, 0)))
        await store.waits.wait()
        if silent:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task is None
        while ledger.late:
            await asyncio.wait(ledger.late)
        assert [each.amount for each in (await store.account(account.id, 0)).spent] == [0]
        assert (await ledger.hold(key, Amount(100, 0))) is not None
        assert (await ledger.hold(key, Amount(1, 0))) is None

    undone()
