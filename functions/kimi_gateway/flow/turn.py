"""One turn: an admitted request, its rounds upstream, and its outcome, which is decided once."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from kimi_gateway.accounts import budgets
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
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.usage import add_usage

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
        self.held = AsyncExitStack()
        self._reservation = reservation
        self._background = background
        self._pardon = pardon  # whether a key's empty answer is free
        self._interrupted = False
        self._fees: list[str] = []  # of the upstream's tools, by name
        self._usage: dict[str, Any] | None = None  # final with the decision

    @property
    def admission(self) -> Admission:
        return self._reservation.admission

    def bill(self, tool: str) -> None:
        """Note a call of an upstream's tool that costs money."""
        self._fees.append(tool)

    def interrupt(self, error: GatewayError) -> None:
        """End the turn from outside, as an upstream failure would."""
        self._interrupted = True
        self.rounds.box.interrupt(error)

    async def settle(self) -> None:
        if all(call.empty for call in self.rounds.calls) and self._pardon(self.admission.key.id):
            await self.forgo("empty")
        else:
            await self._decide("settled", self._settled)

    async def forgo(self, outcome: str) -> None:
        """Decide not to charge, without an error."""
        await self._decide(outcome, partial(self._released, error=False))

    async def fail(self) -> None:
        """Decide not to charge, and count an error."""
        await self._decide("failed", partial(self._released, error=True))

    async def close(self) -> None:
        """The client has everything or has left; then it pays if the upstream had begun to answer."""
        try:
            stopped = self.rounds.stop(self._reservation.latch is Latch.SETTLED, self._background)
            if self._interrupted:  # and the client is so slow that it was not told
                await self.fail()
            elif self.rounds.content_sent:
                await self._decide("left_settled", self._settled)
            else:
                await self._decide("left_released", partial(self._released, error=False))
            if stopped:
                await asyncio.wait(stopped)
        finally:
            try:
                await self.held.aclose()
            finally:
                await self._reservation.end()

    async def _settled(self) -> bool:
        usage = self.usage()
        counts = Usage(count(usage, "prompt_tokens"), count(usage, "completion_tokens"))
        return await self._reservation.settle(counts, self.billed())

    async def _released(self, error: bool) -> bool:
        return await self._reservation.release(error, self.billed())

    def billed(self) -> Amount:
        """For budgets: what the vendor billed so far, whether the client is charged or not."""
        admission, calls = self.admission, self.rounds.calls
        if admission.bound is None or not calls:
            return NOTHING
        billed = spending.billed(calls, admission)
        most = budgets.largest(admission.bound, admission.output)
        if billed.usd > most.usd or billed.tokens > most.tokens:
            emit("billed_above_bound", logging.ERROR, id=admission.id, billed=billed, bound=most)
        return billed

    async def _decide(self, outcome: str, write: Callable[[], Awaitable[bool]]) -> None:
        """Make the decision unless there is one. The ledger writes it even if the caller is cancelled."""
        if self._reservation.latch is Latch.OPEN:
            self.outcome = UNWRITTEN
            if await write():
                self.outcome = outcome

    def answered(self) -> list[tuple[str, str]]:
        """The upstream's headers that the client may see."""
        calls = self.rounds.calls
        return list(calls[0].call.answered.items()) if calls else []

    def usage(self) -> dict[str, Any]:
        """The upstream's counts, summed over the calls; an estimate for calls without counts."""
        if self._usage is None or self._reservation.latch is Latch.OPEN:
            self._usage = self._counted()
        return self._usage

    def _counted(self) -> dict[str, Any]:
        total, *others = [call.progress.usage or self._estimate(call) for call in self.rounds.calls]
        for usage in others:
            total = add_usage(total, usage)
        prompt, completion = count(total, "prompt_tokens"), count(total, "completion_tokens")
        both = count(total, "total_tokens") or prompt + completion
        return total | {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": both}

    def _estimate(self, call: UpstreamCall) -> dict[str, int]:
        prompt = token_estimate.of_messages(call.call.body["messages"], call.call.body.get("tools"))
        written = math.ceil(call.progress.written)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def describe(self, record: RequestRecord) -> None:
        """Add the outcome to the request's record."""
        record.admission_id, record.outcome = self.admission.id, self.outcome
        if not self.rounds.calls:  # nothing was sent upstream
            return
        usage = self.usage()
        first = self.rounds.calls[0]
        record.provider = first.upstream.provider.name
        record.upstream_model = first.call.model.upstream
        record.upstream_tokens = [token for call in self.rounds.calls for token in call.tokens]
        record.attempts = sum(call.attempts for call in self.rounds.calls)
        record.input_tokens = count(usage, "prompt_tokens")
        record.cached_tokens = cached(usage)
        record.output_tokens = count(usage, "completion_tokens")
        if record.charged:
            record.credits = self.admission.cost if self.admission.spendable is not None else 0
            counts = (record.input_tokens, record.cached_tokens, record.output_tokens)
            cost = models.cost(record.provider, first.call.model, *counts)
            record.cost_usd = None if cost is None else round(cost + models.fee(self._fees), 9)
        if self._fees:
            record.searches = len(self._fees)
