"""The rounds of a turn: upstream calls, one round after another, and their chunks.

A round is one question upstream: one call, or several for several choices. Most turns have one round. A
planner may add further rounds, so that a tool which the gateway runs itself can work in between. All rounds
put their results into one mailbox, so pings, the deadline and an interruption work the same all along.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError, Unavailable
from kimi_gateway.flow.attempts import Ended, Item, UpstreamCall
from kimi_gateway.net.mailbox import Mailbox, begin
from kimi_gateway.observe import piece, sinks
from kimi_gateway.pivot.chunks import Chunk, apart
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Tap, Upstream

if TYPE_CHECKING:
    from kimi_gateway.flow.allowance import Allowance

MOST_ROUNDS = 32  # of one turn; a planner has a smaller bound of its own


@dataclass(frozen=True, slots=True)
class NextRound:
    """Put into the mailbox by a planner; without calls the turn is complete."""

    calls: Sequence[UpstreamCall]


class Begun:
    """Put into the mailbox when the step before the first round has begun it."""


@dataclass(frozen=True, slots=True)
class ForClient:
    """Put into the mailbox by a planner: chunks that the client gets at once."""

    chunks: list[Chunk]


class Planner(Protocol):
    """Decides about the next round of one turn."""

    def shown(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks for the client. It keeps back what belongs to the gateway, such as calls of tools that
        the gateway runs, and the finish reason of a round that is not the last."""
        ...

    async def next(self) -> Sequence[UpstreamCall]:
        """Called when a round is complete, as a task of its own: the calls of the next round, which put their
        results into the same mailbox. Empty if there is none. Raises GatewayError."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """The start of a planner: the client's question and its upstream. `ask` returns the calls of a further
    round; it takes the extended chat and the bytes that were added to it. `show` passes chunks to the client
    from within `Planner.next`: what was kept back of the last round, or a sign of what a tool does.
    `allowance` gives what decides about calls of an upstream's tool. `size` is the question's, in bytes.
    `asked` are the messages as the client sent them; `kept` gets cache entries for its next request."""

    chat: ChatRequest
    upstream: Upstream
    ask: Callable[[ChatRequest, int], Awaitable[Sequence[UpstreamCall]]]
    show: Callable[[list[Chunk]], Awaitable[None]]
    allowance: Callable[[], Allowance]
    size: int
    asked: Sequence[dict[str, Any]] = ()
    kept: dict[str, bytes] = field(default_factory=dict)


Plan = Callable[[Opening], Planner | None]  # the planner for a question; None where one round is enough


def _as_it_is(failure: UpstreamFailure) -> GatewayError:
    return failure.shown()


class Rounds:
    """`begin`, then `chunks` until the last round is complete; `stop` at the end, whatever happened."""

    def __init__(self) -> None:
        self.box: Mailbox[Item | NextRound | Begun | ForClient] = Mailbox()
        self.calls: list[UpstreamCall] = []  # of all rounds
        self.chained = False  # another model may answer
        self.taps: list[Tap] = []  # of models that took a place
        self.first_content: float | None = None  # time.monotonic()
        self._last = 0.0  # time of the piece before; 0 if there was none
        self._planner: Planner | None = None
        self._shown = False  # something of substance, with a planner
        self._begun = set[int]()  # choices whose role was named, with a planner
        self._error: Callable[[UpstreamFailure], GatewayError] = _as_it_is
        self._reading: list[asyncio.Task[None]] = []  # one for each of `calls` that runs
        self._planning: asyncio.Task[None] | None = None
        self._before: Callable[[], Awaitable[None]] | None = None
        self._again: Callable[[], Awaitable[None]] | None = None

    def begin(
        self,
        calls: Sequence[UpstreamCall],
        error: Callable[[UpstreamFailure], GatewayError] = _as_it_is,
        planner: Planner | None = None,
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """The first round. Its calls run when `chunks` is asked for the first of them. `error` translates an
        upstream's failure for the client. `again` is tried if the token that a call is bound to fails before
        any content: it calls `begin` with other calls, which replace these."""
        self.calls = list(calls)
        self._error = error
        self._planner = planner
        self._again = again

    def begin_after(self, step: Callable[[], Awaitable[None]]) -> None:
        """As `begin`, which `step` calls when it is done. It runs while `chunks` is read, so the client gets
        signs of life meanwhile. What it raises, `chunks` raises."""
        self._before = step

    @property
    def content_sent(self) -> bool:
        """Whether the client got content, or is about to. With a planner only what was shown counts."""
        if self._planner is not None:
            return self._shown
        return any([call.last.content_sent for call in self.calls])

    @property
    def answering(self) -> list[UpstreamCall]:
        """The calls that answer, one for each choice and round; none where all models failed."""
        last = [call if call.follower is None else call.last for call in self.calls]
        return [call for call in last if not call.given_up]

    @property
    def every(self) -> list[UpstreamCall]:
        """The calls, and those that took their places."""
        found = []
        for each in self.calls:
            call: UpstreamCall | None = each
            while call is not None:
                found.append(call)
                call = call.follower
        return found

    async def show(self, chunks: list[Chunk]) -> None:
        """Pass chunks to the client, behind those that wait."""
        if chunks:
            await self.box.put(ForClient(chunks))

    async def chunks(self, silence: float, longest: float) -> AsyncGenerator[list[Chunk], None]:
        """Chunks as they arrive, and an empty list after each `silence` seconds without any. Raises
        GatewayError when the upstream failed for good, and after `longest` seconds."""
        rounds, running = 1, self._first()
        deadline = time.monotonic() + longest
        while running:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(
                    f"The request took longer than {round(longest, 1):g} seconds.", cause="max_request"
                )
            item = await self.box.get(min(silence, left), left)
            if isinstance(item, list):
                planner = self._planner
                if planner is not None and not (item := self._for_client(planner.shown(apart(item)))):
                    continue
                if self.first_content is None:
                    self.first_content = time.monotonic()
                if sinks:
                    self._last = piece(self._last)
                yield item
            elif isinstance(item, Ended):
                running -= 1
                if not running and self._planner is not None:
                    self._planning = asyncio.create_task(self._plan(self._planner))
                    running = 1
            elif isinstance(item, Begun):
                running = self._run(self.calls)
            elif isinstance(item, NextRound):
                rounds += 1
                if rounds > MOST_ROUNDS:
                    raise Unavailable("The answer took too many steps.", cause="rounds")
                self.calls += item.calls
                running = self._run(item.calls)
            elif isinstance(item, ForClient):
                yield self._for_client(item.chunks)
            elif isinstance(item, UpstreamFailure):
                if item.cause != "bound" or self._again is None or rounds > 1 or self.content_sent:
                    raise self._error(item) from item
                await self._forget_calls()
                self._planning = asyncio.create_task(self._opened(self._again))
                running = 1
            elif isinstance(item, Exception):
                raise item
            elif left > silence:
                yield []

    def pass_to(self, client: Callable[[list[Chunk]], bool]) -> None:
        """Give chunks to `client` without `chunks`, as long as that waits and `client` takes them."""
        self.box.direct = partial(self._pass, client)

    def _pass(self, client: Callable[[list[Chunk]], bool], item: object) -> bool:
        if self._planner is not None or self.first_content is None:
            return False
        if not isinstance(item, list) or not client(item):
            return False
        if sinks:
            self._last = piece(self._last)
        return True

    def _for_client(self, chunks: list[Chunk]) -> list[Chunk]:
        """The same, as one answer: it names its role once, however many rounds it has."""
        if chunks and self.first_content is None:
            self.first_content = time.monotonic()
        for chunk in chunks:
            self._shown |= chunk.substance
            for choice in chunk.body["choices"]:
                delta, index = choice.get("delta"), choice.get("index", 0)
                if not delta or "role" not in delta:
                    continue
                if index in self._begun:
                    del delta["role"]
                    chunk.data = b""
                self._begun.add(index)
        return chunks

    def _first(self) -> int:
        if self._before is None:
            return self._run(self.calls)
        self._planning = asyncio.create_task(self._opened(self._before))
        return 1

    async def _opened(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
            await self.box.put(Begun())
        except Exception as exc:
            await self.box.put(exc)

    def _run(self, calls: Sequence[UpstreamCall]) -> int:
        loop = asyncio.get_running_loop()
        self._reading += [begin(loop, call.run()) for call in calls]
        return len(calls)

    async def _forget_calls(self) -> None:
        """Stop the calls, and drop the items that they have put."""
        for task in self._reading:
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading)
        self.box.clear()
        self._reading = []

    async def _plan(self, planner: Planner) -> None:
        try:
            await self.box.put(NextRound(await planner.next()))
        except Exception as exc:
            await self.box.put(exc)

    def stop(self, complete: bool, background: set[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """Stop when nobody waits for chunks any more. Returns the cancelled tasks that have not ended yet. A
        call of a `complete` turn that has ended reads the rest in the `background`, so that its connection
        can be used again."""
        self.box.close()
        cancelled = []
        if self._planning is not None and not self._planning.done():
            cancelled.append(self._planning)
        for task, call in zip(self._reading, self.calls, strict=False):
            if task.done():
                continue
            if call.last.ended and complete:
                background.add(task)
                task.add_done_callback(background.discard)
            else:
                cancelled.append(task)
        for task in cancelled:
            task.cancel()
        self._reading, self._planning = [], None  # a cancelled task refers to all that its frames held
        return cancelled
