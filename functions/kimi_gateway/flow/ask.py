"""The flow of a request on one screen: authenticate → refuse → read → admit → complete → stream → settle.

Work before admission is bounded by the size of the body; expensive work comes after it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.ledger import Ledger, Reservation
from kimi_gateway.accounts.limit_headers import admission_headers
from kimi_gateway.accounts.pardons import Pardons
from kimi_gateway.accounts.values import Key
from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects import errors
from kimi_gateway.errors import GatewayError, ShuttingDown, Unavailable, forget_frames
from kimi_gateway.flow import preparation
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attachments import Files, NoFiles
from kimi_gateway.flow.attempts import Patience, UpstreamCall
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.flow.preparation import AdmittableRequest, CompletedRequest, FallBack, Recalled
from kimi_gateway.flow.rounds import Opening, Plan
from kimi_gateway.flow.streamed import JSON, STREAM, StreamedAnswer, collecting, headers_of
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import asked_by
from kimi_gateway.pivot import ignored
from kimi_gateway.pivot.attachments import NO_IDS, Ids, Resolver
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Dialect, JsonAnswer
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Tap
from kimi_gateway.providers.registry import Registry
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.flow.passthrough import PassThrough
    from kimi_gateway.storage.answers import AnswerStore


@dataclass(slots=True)
class Gateway:
    gate: Gate
    ledger: Ledger
    registry: Registry
    conversations: ConversationCache
    answers: Callable[[], AnswerStore]
    settings: Settings
    clock: Callable[[], float] = time.time
    files: Files = field(default_factory=NoFiles)
    turns: set[Turn] = field(default_factory=set)
    background: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False
    pardons: Pardons = field(default_factory=Pardons)
    plan: Plan | None = None  # may add rounds to a turn
    passing: PassThrough | None = None  # callers may bring tokens of their own
    fall_back: FallBack | None = None  # gives calls other models to fall back to

    @property
    def keeps(self) -> bool:
        """Whether answers are kept for later requests."""
        return self.conversations.keeps

    async def ask(self, request: Request, dialect: Dialect) -> Response:
        key = await self.gate.authenticate(request.headers, request.client)
        asked_by(request.record, key.id, key.account)
        if request.headers.all("idempotency-key"):
            from kimi_gateway.flow import idempotency  # few requests need it

            return await idempotency.ask(self, request, dialect, key)
        return await self.answer(request, dialect, key)

    async def answer(self, request: Request, dialect: Dialect, key: Key) -> Response:
        await self.gate.refuse(key, request.is_large)
        self.gate.places.check(key.account)
        size = 0
        try:
            registry = self.registry
            if isinstance(key, GuestKey) and self.passing is not None:
                registry = self.passing.registry(registry, key, request.headers)
            size = len(raw := await request.body())
            admittable = await preparation.read(
                registry, request, dialect, raw, partial(self._may_ask, key), self.settings.search
            )
            if self.closing:
                raise ShuttingDown
            ask, model = admittable.ask, admittable.resolved.model
            bound = partial(preparation.bound, admittable, terms.may_search(key), self.clock, self.settings)
            reservation = self.ledger.reserve(
                self.gate, key, model.credits, model.id, ask.model, ask.choices, bound
            )
            async with reservation:
                request.admitted()
                return await self._serve(admittable, reservation)
        except GatewayError as error:  # before admission, or Unavailable right behind it
            if not isinstance(error, Unavailable):
                self.gate.wasted(key, size)
            raise

    async def _may_ask(self, key: Key) -> bool:
        """Whether the upstream may be asked for an unknown model. Raises InsufficientCredits."""
        if isinstance(key, GuestKey):
            return False
        await self.gate.require_credit(key)
        return True

    async def _serve(self, admittable: AdmittableRequest, reservation: Reservation) -> Response:
        """The caller of a returned response closes the turn; without a response it is closed here."""
        request, turn = admittable.request, Turn(reservation, self.background, self.pardons)
        if self.passing is not None and isinstance(turn.admission.key, GuestKey):
            self.passing.admitted(admittable.upstream, turn.admission.key)
        self.turns.add(turn)
        try:
            response = await self._answered(admittable, turn)
            reservation.keep()
            return response
        except Exception as exc:
            await turn.fail(getattr(exc, "cause", GatewayError.code))
            await self._close(request, turn)
            raise
        except BaseException:
            await asyncio.shield(self._close(request, turn))
            raise

    async def _answered(self, admittable: AdmittableRequest, turn: Turn) -> Response:
        request = admittable.request
        try:
            if admittable.ask.unasked is not None and not (admittable.searches and turn.may_search):
                return await self._unasked(admittable, turn, admittable.ask.unasked)
            recalled = await preparation.recall(admittable, turn, self.conversations)
            if admittable.ask.stream:
                return await self._stream(admittable, recalled, turn)
            completed = await self._ready(admittable, recalled, turn)
            collector = completed.parsed.answer(self._identity(admittable), completed.narrowed)
            await self._begin(admittable, recalled, turn, completed)
            return await self._collect(request, turn, completed, collector)
        except GatewayError as error:
            return await self._failed(request, turn, error)

    async def _ready(
        self, admittable: AdmittableRequest, recalled: Recalled, turn: Turn, without: Ids = NO_IDS
    ) -> CompletedRequest:
        files: Resolver = self.files
        if recalled.attached:
            stores = admittable.begun(recalled).stores
            own = admittable.resolved.model.provider == PLATFORM
            # A guest's files go to its own tokens.
            if isinstance(turn.admission.key, GuestKey) or not own or not stores:
                files = self.files.of_request(admittable.upstream, stores)
        return await preparation.complete(admittable, recalled, turn, self.conversations, files, without)

    def _identity(self, admittable: AdmittableRequest) -> Identity:
        fingerprint = f"fp_{admittable.resolved.model.upstream}"
        return Identity(f"chatcmpl-{uuid.uuid4()}", admittable.ask.model, int(self.clock()), fingerprint)

    async def _unasked(
        self, admittable: AdmittableRequest, turn: Turn, answer: Callable[[Identity], bytes]
    ) -> Response:
        """An answer without an upstream call: counted in the windows and not charged."""
        body = answer(self._identity(admittable))
        kind = STREAM if admittable.ask.stream else JSON
        if (recording := admittable.request.recording) is not None:
            await recording.complete(kind, body)
        await turn.forgo("unasked")
        headers = [*kind, *admission_headers(turn.admission, released=True)]
        return Response(200, headers, body, close=lambda: self._close(admittable.request, turn))

    async def _settle(
        self,
        request: Request,
        turn: Turn,
        completed: CompletedRequest,
        taps: Sequence[Tap],
        answered: tuple[Sequence[tuple[str, str]], bytes],
    ) -> None:
        """Charge and store, before the client learns that it has all of the answer. `answered` are its
        headers and its last bytes."""
        if request.recording is not None:  # first, so that no repeated request is charged again
            await request.recording.complete(*answered)
        account, parsed, kept = turn.admission.key.account, completed.parsed, dict[str, bytes]()
        if parsed.stores:
            kept |= turn.kept
            for tap in (*taps, *turn.rounds.taps):
                kept |= tap.kept()
            kept |= await apart(parsed.size, partial(parsed.kept, tuple(kept)))
        if kept and parsed.continues and not await self.conversations.has(account, parsed.continues):
            kept = {}
        if kept:
            await asyncio.gather(turn.settle(), self.conversations.keep(account, kept))
        else:
            await turn.settle()

    async def _stream(self, admittable: AdmittableRequest, recalled: Recalled, turn: Turn) -> Response:
        """Waits for the first content or the first ping, so that an early failure is still a status. Until
        then attachments are read, and longer if need be."""
        request, identity, writing = admittable.request, self._identity(admittable), StreamedAnswer()

        async def begin() -> None:
            completed = await self._ready(admittable, recalled, turn)
            parsed = completed.parsed
            writer = await apart(parsed.size, lambda: parsed.writer(identity, completed.narrowed))
            await self._begin(admittable, recalled, turn, completed)
            writing.complete(completed, writer)

        if recalled.attached:
            turn.rounds.begin_after(begin)
        else:
            await begin()
        chunks = turn.rounds.chunks(self.settings.ping_interval, self._longest(request))
        first = await anext(chunks)
        names = request.record.ignored
        if writing.completed is None:
            parsed = await apart(admittable.size, lambda: admittable.begun(recalled))
            writing.begin(await apart(admittable.size, lambda: parsed.writer(identity)))
            further = preparation.unsearched(parsed.chat, admittable.searches and turn.may_search)
            names = await preparation.ignored_so_far(admittable, parsed.chat, further)

        async def body() -> AsyncGenerator[bytes, None]:
            try:
                yield writing.add(first) or writing.silence()
                turn.rounds.pass_to(writing.send)
                async with aclosing(chunks):
                    async for some in chunks:
                        if framed := writing.add(some):
                            yield framed
                last = writing.writer.end(turn.usage())
                assert writing.completed is not None  # noqa: S101  a round was begun with it
                await self._settle(request, turn, writing.completed, writing.taps, (headers, last))
            except Exception as exc:
                error = exc if isinstance(exc, GatewayError) else errors.crashed(request)
                await turn.fail(error.cause)
                request.record.cause = error.cause
                forget_frames(exc)
                yield writing.writer.error(error)
                return
            yield last

        headers = headers_of(STREAM, names, turn)
        return Response(200, headers, body(), close=lambda: self._close(request, turn), direct=writing.to)

    async def _collect(
        self, request: Request, turn: Turn, completed: CompletedRequest, collector: JsonAnswer
    ) -> Response:
        taps = completed.prepared.taps()
        take = collecting(collector, taps)
        turn.rounds.pass_to(take)  # most chunks, so that this task goes on at the end
        async for some in turn.rounds.chunks(self.settings.ping_interval, self._longest(request)):
            take(some)
        body = collector.end(turn.usage())
        headers = headers_of(JSON, request.record.ignored, turn)
        await self._settle(request, turn, completed, taps, (headers, body))
        return Response(200, headers, body, close=lambda: self._close(request, turn))

    async def _failed(self, request: Request, turn: Turn, error: GatewayError) -> Response:
        await turn.fail(error.cause)
        response = errors.response(error, request)
        response.headers += admission_headers(turn.admission, released=True)
        response.close = lambda: self._close(request, turn)
        request.record.cause = error.cause
        return response

    async def _close(self, request: Request, turn: Turn) -> None:
        try:
            await turn.close()
        finally:
            self.turns.discard(turn)
        turn.describe(request.record, request.started)
        if turn.rounds.first_content is not None:
            request.record.first_content_ms = round((turn.rounds.first_content - request.started) * 1000, 2)

    async def drain(self, seconds: float) -> None:
        """Accept no new chats; running ones may finish within `seconds`, then they get an error."""
        self.closing = True
        await asyncio.sleep(seconds)
        for turn in list(self.turns):
            turn.interrupt(ShuttingDown())

    def _longest(self, request: Request) -> float:
        """The longest duration of the answer, in seconds from now."""
        left = max(request.deadline - time.monotonic(), 0.001)
        return min(self.settings.max_request or math.inf, left)

    async def _begin(
        self,
        admittable: AdmittableRequest,
        recalled: Recalled,
        turn: Turn,
        completed: CompletedRequest,
        without: Ids = NO_IDS,
    ) -> None:
        """Give the turn its first round, which its chunks start. `without`: tokens that failed its files."""
        resolved, request, chat = admittable.resolved, admittable.request, completed.chat
        further = (*completed.lowered, *completed.unsearched)
        request.record.ignored = ignored.named(chat.ignored, completed.prepared.ignored, further) or None

        def error(failure: UpstreamFailure) -> GatewayError:
            own = self.passing and self.passing.shown(admittable.upstream, failure)
            return own or failure.shown(resolved.known, request.id, resolved.window, resolved.vendor)

        async def ask(chat: ChatRequest, added: int) -> list[UpstreamCall]:
            further = await preparation.go_on(admittable, completed, turn, self.conversations, chat, added)
            return await self._calls(admittable, turn, chat, further)

        planner = None
        if self.plan is not None and (chat.search is None or completed.searches):
            of = (chat, admittable.upstream, ask, turn.rounds.show, lambda: turn.allowance)
            asked = completed.parsed.chat.body["messages"]
            planner = self.plan(Opening(*of, completed.parsed.size, asked, turn.kept))

        async def again() -> None:  # with uploads to another token
            before = turn.rounds.calls[0]
            failed = without | {before.call.only or ""}
            moved = await self._ready(admittable, recalled, turn, failed)
            await self._begin(admittable, recalled, turn, moved, failed)
            turn.rounds.calls[0].go_on_from(before)

        calls = await self._calls(admittable, turn, chat, completed)
        turn.rounds.begin(calls, error, planner, again if calls[0].call.movable else None)
        request.record.overhead_ms = round((time.monotonic() - request.started) * 1000, 2)

    async def _calls(
        self, admittable: AdmittableRequest, turn: Turn, chat: ChatRequest, completed: CompletedRequest
    ) -> list[UpstreamCall]:
        """One round: a call for each choice."""
        settings, call, largest = self.settings, await completed.call(), completed.largest
        patience = Patience(settings.first_byte_timeout, settings.idle_timeout)
        at: Sequence[int | None] = range(chat.choices) if chat.choices > 1 else (None,)
        of_call = (call, admittable.upstream, turn.rounds.box, patience, settings.answer_limit)
        made = partial(UpstreamCall, *of_call, stops=chat.stops, afford=turn.afford(largest), largest=largest)
        calls = [made(index=one) for one in at]
        if self.fall_back is not None:
            self.fall_back(calls, admittable, turn, chat, completed)
        return calls
