"""What a caller that is cancelled began to write is written all the same."""

from __future__ import annotations

import asyncio

import pytest

from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Admission, Amount, Key, Usage
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
