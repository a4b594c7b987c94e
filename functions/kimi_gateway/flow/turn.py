"""One turn: an admitted request, its rounds upstream, and its outcome, which is decided once."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.ledger import Latch, Reservation
from kimi_gateway.accounts.store import NOTHING
from kimi_gateway.accounts.values import Admission, Amount, Usage
from kimi_gateway.catalog import models
from kimi_gateway.errors import GatewayError
from kimi_gateway.flow import spending
from kimi_gateway.flow.attempts import UpstreamCall
from kimi_gateway.flow.rounds import Rounds
from kimi_gateway.flow.spending import cached, count
from kimi_gateway.observe import RequestRecord, emit
from kimi_gateway.observe.record import Attempt
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.usage import add_usage

if TYPE_CHECKING:
    from kimi_gateway.flow.allowance import Allowance

SERVED_BY = "x-served-by"  # the model that answers, where several may
UNWRITTEN = "unwritten"  # decided but not yet in the store: the write is repeated, or the lease decides


class Turn:
    """Read the chunks of `rounds` until the upstream is complete, then `settle` before the client sees the
    end; call `fail` on an error. The edge calls `close` once, whatever happened: it makes the decision if
    nobody else has.

    `outcome` is open until the store has written the decision; the decision itself is the reservation's.
    `held` is released when the turn is closed: files that were uploaded for it.
    """

    def __init__(
        self,
        reservation: Reservation,
        background: set[asyncio.Task[None]],
        pardon: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self.rounds = Rounds()
        self.outcome = "open"
        self._held: AsyncExitStack | None = None
        self._reservation = reservation
        self._background = background
        self._pardon = pardon  # whether a key's empty answer is free
        self._interrupted = ""  # the cause
        self._allowance: Allowance | None = None
        self.kept: dict[str, bytes] = {}  # cache entries of the planner
        self._usage: dict[str, Any] | None = None  # final with the decision
        self._counts: list[dict[str, Any]] = []  # its parts, by call
        self._told: list[dict[str, Any] | None] = []  # what it was counted from

    @property
    def admission(self) -> Admission:
        return self._reservation.admission

    @property
    def held(self) -> AsyncExitStack:
        if self._held is None:
            self._held = AsyncExitStack()
        return self._held

    @property
    def allowance(self) -> Allowance:
        """It decides about further rounds and the upstream's tools, and notes their cost."""
        if self._allowance is None:
            from kimi_gateway.flow.allowance import Allowance  # few requests need it

            self._allowance = Allowance(self._reservation, self._calls_billed, self._calls_in_minute)
        return self._allowance

    def afford(self, largest: Amount) -> Callable[[], Awaitable[bool]] | None:
        """Reserves another attempt that may cost `largest`; None without a budget."""
        if self.admission.bound is None:
            return None
        return lambda: self.allowance.afford_attempt(largest)

    @property
    def may_search(self) -> bool:
        """Whether the key may search, and a search was reserved for, where there is a budget."""
        bound = self.admission.bound
        return terms.may_search(self.admission.key) and (bound is None or bound.spare)

    def interrupt(self, error: GatewayError) -> None:
        """End the turn from outside, as an upstream failure would."""
        self._interrupted = error.cause
        self.rounds.box.interrupt(error)

    async def settle(self) -> None:
        if all([call.last.empty for call in self.rounds.calls]) and self._pardon(self.admission.key.id):
            await self.forgo("empty")
        else:
            await self._decide("settled", self._settled)

    async def forgo(self, outcome: str) -> None:
        """Decide not to charge, without an error."""
        await self._decide(outcome, partial(self._released, error=False))

    async def fail(self, cause: str = "") -> None:
        """Decide not to charge, and count an error with its cause."""
        await self._decide("failed", partial(self._released, error=True, cause=cause))

    async def close(self) -> None:
        """The client has everything or has left; then it pays if the upstream had begun to answer."""
        try:
            stopped = self.rounds.stop(self._reservation.latch is Latch.SETTLED, self._background)
            if self._interrupted:  # and the client is so slow that it was not told
                await self.fail(self._interrupted)
            elif self.rounds.content_sent:
                await self._decide("left_settled", self._settled)
            else:
                await self._decide("left_released", partial(self._released, error=False))
            if stopped:
                await asyncio.wait(stopped)
        finally:
            try:
                if self._held is not None:
                    await self._held.aclose()
            finally:
                await self._reservation.end()

    async def _settled(self) -> bool:
        self.usage()
        spent = self.spent(estimated=True)
        return await self._booked(partial(self._reservation.settle, spent))

    async def _released(self, error: bool, cause: str = "") -> bool:
        spent = self.spent()
        return await self._booked(lambda billed: self._reservation.release(error, billed, spent, cause))

    def spent(self, estimated: bool = False) -> Usage:
        """For usage: what the upstream counted, with the estimates of `usage` for calls without counts if
        they are wanted."""
        calls = self._answering
        counts = self._counts if estimated else [call.progress.usage for call in calls]
        return spending.usage_of(zip(calls, counts, strict=True), self._fees)

    @property
    def _fees(self) -> Sequence[str]:
        """Calls of the upstream's tools that cost money, by name."""
        return () if self._allowance is None else self._allowance.fees

    async def _booked(self, write: Callable[[Amount], Awaitable[bool]]) -> bool:
        """For budgets: what the vendor billed, whether the client is charged or not."""
        if self.admission.bound is None:
            return await write(NOTHING)
        allowance = self.allowance
        billed, most = allowance.billed, allowance.reserved
        if billed.usd > most.usd or billed.tokens > most.tokens:
            emit("billed_above_bound", logging.ERROR, id=self.admission.id, billed=billed, bound=most)
        if not allowance.holds:
            return await write(allowance.whole)
        written, _ = await asyncio.gather(write(allowance.split()), allowance.close())
        return written

    def _calls_billed(self) -> Amount:
        return spending.billed(self.rounds.every, self.admission)

    def _calls_in_minute(self) -> int:
        return spending.in_minute(self.rounds.every, self.admission)

    @property
    def _answering(self) -> list[UpstreamCall]:
        return self.rounds.answering or self.rounds.calls

    async def _decide(self, outcome: str, write: Callable[[], Awaitable[bool]]) -> None:
        """Make the decision unless there is one. The ledger writes it even if the caller is cancelled."""
        if self._reservation.latch is Latch.OPEN:
            self.outcome = UNWRITTEN
            if await write():
                self.outcome = outcome

    def answered(self) -> list[tuple[str, str]]:
        """The upstream's headers that the client may see."""
        calls = self.rounds.answering
        headers = list(calls[0].call.answered.items()) if calls else []
        if self.rounds.chained and self.rounds.content_sent:
            served = dict.fromkeys(call.call.model.id for call in calls)
            headers.append((SERVED_BY, ", ".join(served)))
        return headers

    def usage(self) -> dict[str, Any]:
        """The upstream's counts, summed over the calls; an estimate for calls without counts."""
        if self._usage is None or self._reservation.latch is Latch.OPEN:
            told = [call.progress.usage for call in self._answering]
            if self._usage is None or told != self._told or not all(told):  # an estimate grows
                self._usage, self._told = self._counted(), told
        return self._usage

    def _counted(self) -> dict[str, Any]:
        self._counts = [call.progress.usage or self._estimate(call) for call in self._answering]
        total, *others = self._counts
        for usage in others:
            total = add_usage(total, usage)
        prompt, completion = count(total, "prompt_tokens"), count(total, "completion_tokens")
        both = count(total, "total_tokens") or prompt + completion
        return total | {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": both}

    def _estimate(self, call: UpstreamCall) -> dict[str, int]:
        prompt = token_estimate.of_messages(call.call.body["messages"], call.call.body.get("tools"))
        written = math.ceil(call.progress.written)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def describe(self, record: RequestRecord, started: float) -> None:
        """Add the outcome to the request's record. `started` is the time.monotonic() of its begin."""
        admission = self.admission
        record.admission_id, record.outcome = admission.id, self.outcome
        if not self.rounds.calls:  # nothing was sent upstream
            return
        usage = self.usage()
        answering, fees, every = self._answering, self._fees, self.rounds.every
        first = answering[0]
        record.provider = first.upstream.provider.name
        record.upstream_model = first.call.model.upstream
        record.upstream_tokens = [token for call in every for token in call.tokens]
        record.attempts = sum([call.attempts for call in every])
        if record.attempts > 1:
            record.tries = _tries(every, started)
        record.fell_back = [
            f"{call.call.model.id}: {call.given_up}" for call in every if call.follower
        ] or None
        record.input_tokens, record.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        record.cached_tokens = cached(usage)
        if fees:
            record.searches = len(fees)
        if record.charged:
            record.credits = admission.cost if admission.spendable is not None else 0
            if isinstance(admission.key, GuestKey):
                return  # the operator pays nothing
            calls = zip(answering, self._counts, strict=True)
            cost, currency = spending.listed(calls) or (None, "")
            if currency == "CNY":
                record.cost_cny = cost  # the fees of searches are known in USD only
            elif cost is not None:
                record.cost_usd = round(cost + models.fee(fees) if fees else cost, 9)


def _tries(calls: Sequence[UpstreamCall], started: float) -> list[Attempt]:
    """All attempts of the calls, in the order of their begin."""
    found = []
    for call in calls:
        which = call.call.model.id, call.upstream.provider.name
        for began, ended, token, cause in call.failed:
            found.append(Attempt((began - started) * 1e3, (ended - started) * 1e3, *which, token, cause))
        if len(call.failed) < len(call.tokens):
            found.append(Attempt((call.began - started) * 1e3, None, *which, call.tokens[-1], None))
    return sorted(found, key=lambda each: each.start)
