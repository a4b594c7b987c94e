"""The share of the budgets that one turn may spend: its admission's reservation, and further ones.

Nothing runs before its largest cost is reserved. A turn has at most one further reservation at a time: before
the next one, it ends with what was billed of it. A turn that searches keeps the cost of one answer back, so
that it can answer when the budgets leave nothing for another search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import budgets
from kimi_gateway.accounts.ledger import Hold, Reservation
from kimi_gateway.accounts.store import NOTHING
from kimi_gateway.accounts.values import Admission, Amount, Unit
from kimi_gateway.catalog import models
from kimi_gateway.errors import BudgetExceeded


class Allowance:
    """`calls` is what the vendor billed for the turn's calls so far, or may bill. `in_minute`: their tokens
    for the limits of a minute."""

    def __init__(
        self, reservation: Reservation, calls: Callable[[], Amount], in_minute: Callable[[], int]
    ) -> None:
        self.fees: list[str] = []  # calls of the upstream's tools that it bills, by name
        self._unsure: list[str] = []  # those that run, or whose answer was lost
        self._reservation = reservation
        self._calls = calls
        self._in_minute = in_minute
        self._hold: Hold | None = None
        self._booked = NOTHING  # of further reservations that have ended
        self._attempts = asyncio.Lock()  # several calls may fail at one time
        self._round: Hold | None = None  # of the present further round, in its minute
        self._before = 0  # tokens that were billed before it
        self._counted = 0  # tokens that ended rounds have counted in theirs

    @property
    def _admission(self) -> Admission:
        return self._reservation.admission

    @property
    def billed(self) -> Amount:
        """The vendor's bill so far, with what it may bill."""
        usd = sum(map(models.fee_in_micro, (*self.fees, *self._unsure)))
        return _sum(self._calls(), Amount(usd))

    @property
    def reserved(self) -> Amount:
        return _sum(self._of_admission(), self._booked, NOTHING if self._hold is None else self._hold.amount)

    @property
    def whole(self) -> Amount:
        """The bill, where the admission's reservation is the only one."""
        return self.billed._replace(minute=self._in_minute()) if self.by_minute else self.billed

    def left(self, last: bool) -> Amount:
        """The reserved part that is not spent. Only the `last` round may spend the answer's share."""
        bound = self._admission.bound
        left = _difference(self.reserved, self.billed)
        if last or bound is None or not bound.spare:
            return left
        return _difference(left, budgets.largest(replace(bound, calls=1), self._admission.output))

    async def afford(self, needed: Amount, last: bool = False) -> bool:
        """Reserve `needed`, unless that much is left. False if the budgets do not allow it."""
        if self._admission.bound is None or self._covers(self.left(last), needed):
            return True
        await self._end_hold()
        short = _difference(needed, self.left(last))
        self._hold = await self._reservation.hold(Amount(max(short.usd, 0), max(short.tokens, 0)))
        return self._hold is not None

    async def afford_attempt(self, needed: Amount) -> bool:
        """Reserve another attempt of a call, whatever is left: that may belong to the calls beside it."""
        async with self._attempts:
            await self._end_hold()
            self._hold = await self._reservation.hold(needed)
            return self._hold is not None

    @property
    def by_minute(self) -> bool:
        """Whether a limit of tokens a minute counts each round."""
        key = self._admission.key
        return any(each.period == "minute" for each in (*key.budgets, *key.shared))

    async def count_round(self, estimate: int, last: bool) -> None:
        """Count a further round in the limits of this minute, which are trued up when it has ended. The
        `last` round runs in any case, because the client waits for its answer. Raises BudgetExceeded."""
        await self._end_round()
        self._before = self._in_minute()
        self._round = await self._reservation.hold(NOTHING, estimate)
        if self._round is None and not last:
            raise BudgetExceeded("The tokens of this minute leave no room for another round of this answer.")

    async def _end_round(self) -> None:
        ended, self._round = self._round, None
        if ended is not None:
            tokens = self._in_minute() - self._before
            self._counted += tokens
            await ended.release(Amount(minute=tokens))

    async def afford_round(self, body: dict[str, Any], known: int, asked: int, last: bool) -> Amount:
        """Reserve the largest cost of a further round's `body` with `known` tokens of input at most, and
        return it. If the budgets leave less, its output limit becomes what they pay for. Raises
        BudgetExceeded."""
        bound = self._admission.bound
        if bound is None:
            return NOTHING
        one, output = replace(bound, input=known, calls=1), min(asked or bound.output, bound.output)
        if not await self.afford(budgets.largest(one, output), last):
            left = self.left(last)
            paid = [budgets.affordable(one, unit, getattr(left, unit)) for unit in self._units]
            output = min(output, *paid)
            if output < bound.least:
                raise BudgetExceeded("The budget leaves too little for another round of this answer.")
        body["max_completion_tokens"] = output
        return budgets.largest(one, output)

    async def afford_tools(self, tools: Sequence[str]) -> int:
        """How many of these calls may run, from the first on."""
        if self._admission.bound is None or await self.afford(_fees(tools)):
            return len(tools)
        for number in range(1, len(tools)):
            if not await self.afford(_fees(tools[:number])):
                return number - 1
        return max(len(tools) - 1, 0)

    def begin(self, tool: str) -> None:
        """A call of a tool is sent."""
        self._unsure.append(tool)

    def end(self, tool: str, billed: bool | None) -> None:
        """It has ended; None if nobody knows whether it was billed."""
        if billed is None:
            return
        self._unsure.remove(tool)
        if billed:
            self.fees.append(tool)

    @property
    def holds(self) -> bool:
        """Whether a further reservation was made."""
        further = self._hold is not None or self._booked != NOTHING
        return further or self._round is not None or self._counted > 0

    def split(self) -> Amount:
        """The part of the bill that the admission's own reservation pays."""
        bill = _difference(self.billed, self._booked)
        own = _difference(bill, self._of_hold(bill))
        if not self.by_minute:
            return own
        tokens = self._before if self._round is not None else self._in_minute()
        return own._replace(minute=tokens - self._counted)

    async def close(self) -> None:
        """End the further reservations. The bill is final."""
        await self._end_hold()
        await self._end_round()

    @property
    def _units(self) -> Collection[Unit]:
        """The units of the budgets. The limit of a minute goes by an estimate and reserves nothing here."""
        key = self._admission.key
        return {each.unit for each in (*key.budgets, *key.shared) if each.period != "minute"}

    def _covers(self, left: Amount, needed: Amount) -> bool:
        return all(getattr(left, unit) >= getattr(needed, unit) for unit in self._units)

    def _of_admission(self) -> Amount:
        bound = self._admission.bound
        return NOTHING if bound is None else budgets.largest(bound, self._admission.output)

    def _of_hold(self, bill: Amount) -> Amount:
        """The part that the further reservation pays: as much as it can."""
        most = NOTHING if self._hold is None else self._hold.amount
        return Amount(min(max(bill.usd, 0), most.usd), min(max(bill.tokens, 0), most.tokens))

    async def _end_hold(self) -> None:
        hold = self._hold
        if hold is None:
            return
        share = self._of_hold(_difference(self.billed, self._booked))
        self._hold, self._booked = None, _sum(self._booked, share)
        await hold.release(share._replace(minute=0) if self.by_minute else share)


def _fees(tools: Sequence[str]) -> Amount:
    return Amount(sum(map(models.fee_in_micro, tools)))


def _sum(*amounts: Amount) -> Amount:
    return Amount(sum(each.usd for each in amounts), sum(each.tokens for each in amounts))


def _difference(one: Amount, other: Amount) -> Amount:
    return Amount(one.usd - other.usd, one.tokens - other.tokens)
