"""The flow of a request on one screen: authenticate → refuse → read → admit → complete → stream → settle.

What comes before the admission is bounded by the size of the body; what may cost more comes after it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

from kimi_gateway.accounts.gate import Gate, admission_headers
from kimi_gateway.accounts.ledger import Ledger, Reservation
from kimi_gateway.accounts.pardons import Pardons
from kimi_gateway.accounts.values import Key
from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects import errors
from kimi_gateway.dialects.messages.block_sequencer import name_window
from kimi_gateway.errors import GatewayError, InvalidRequest, ShuttingDown, Unavailable
from kimi_gateway.flow import inputs
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attempts import Patience, UpstreamCall
from kimi_gateway.flow.conversation_cache import ConversationCache, tee
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Request, Response
from kimi_gateway.pivot import fields, ignored
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.dialect import Ask, Dialect, JsonAnswer, ParsedRequest, StreamWriter
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.moonshot.adapt import Adapted, adapt
from kimi_gateway.providers.moonshot.reasoning import ReasoningCollector
from kimi_gateway.providers.moonshot.restoring import Restorer
from kimi_gateway.providers.moonshot.schema import clean
from kimi_gateway.providers.provider import Call, Upstream
from kimi_gateway.settings import Settings

COST = 1  # credits of one request, whatever its model (docs/contract.md, Limits and credits)
STREAM_HEADERS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it is when it asks to be admitted. `adapted` where that was cheap; `size` in bytes."""

    request: Request
    ask: Ask
    model: Model
    upstream: Upstream
    adapted: Adapted | None
    size: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """`settle` charges and keeps, before the client learns that it has all of the `chunks`."""

    chunks: AsyncGenerator[list[Chunk], None]
    settle: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Gateway:
    gate: Gate
    ledger: Ledger
    catalog: Catalog
    directory: Directory
    thoughts: ConversationCache
    upstream: Callable[[], Upstream]
    settings: Settings
    clock: Callable[[], float] = time.time
    turns: set[Turn] = field(default_factory=set)
    background: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False
    pardons: Pardons = field(default_factory=Pardons)

    @property
    def keeps(self) -> bool:
        """Whether answers are kept for later requests."""
        return self.thoughts.keeps

    async def ask(self, request: Request, dialect: Dialect) -> Response:
        key = await self.gate.authenticate(request.headers, request.client)
        request.record.key, request.record.account = key.id, key.account
        await self.gate.refuse(key)
        self.gate.places.check(key.account)
        size = 0
        try:
            raw = await request.body()
            size = len(raw)
            asked = await self._read(request, dialect, raw, key)
            reservation = self.ledger.reserve(self.gate, key, COST, asked.model.id, asked.ask.choices)
            async with reservation:
                return await self._serve(asked, reservation)
        except GatewayError as error:  # none comes here after the admission
            if not isinstance(error, Unavailable):
                self.gate.wasted(key, size)
            raise

    async def _read(self, request: Request, dialect: Dialect, raw: bytes, key: Key) -> _Asked:
        """All that can be found wrong with a body for little work."""
        ask = await apart(len(raw), partial(dialect.read, raw))
        request.record.model, request.record.stream = ask.model[:80], ask.stream

        async def may_ask() -> bool:
            await self.gate.require_credit(key)
            return True

        model = await self.directory.resolve(ask.model, self.catalog, may_ask)
        adapted = None
        if not ask.needs:
            adapted = await apart(len(raw), lambda: self._quickly(ask.complete({}, ()).chat, model))
            if attached := ask.attachments({}):
                placement.refused(attached, model)
                adapted = None  # it is only known now that nothing else is wrong
        if self.closing:
            raise ShuttingDown
        return _Asked(request, ask, model, self.upstream(), adapted, len(raw))

    async def _serve(self, asked: _Asked, reservation: Reservation) -> Response:
        """Whoever gets the response closes the turn; it is closed here where none is given."""
        request, turn = asked.request, Turn(reservation, self.background, self.pardons)
        self.turns.add(turn)
        try:
            response = await self._answered(asked, turn)
            reservation.keep()
            return response
        except Exception:
            await turn.fail()
            await self._close(request, turn)
            raise
        except BaseException:
            await asyncio.shield(self._close(request, turn))
            raise

    async def _answered(self, asked: _Asked, turn: Turn) -> Response:
        request = asked.request
        try:
            if asked.ask.unasked is not None:
                return await self._unasked(asked, turn, asked.ask.unasked)
            question, adapted = await self._completed(asked, turn.admission.key.account)
            chat = question.chat
            names = ignored.named(chat.ignored, adapted.ignored)
            if names:
                request.record.ignored = names
            headers = [(ignored.HEADER, ", ".join(names))] if names else []
            size, identity = asked.size, self._identity(asked)
            native = inputs.is_native(chat, asked.model, self.settings)
            payload = await apart(size, lambda: inputs.payload(chat, adapted.body, native))
            self._begin(asked, turn, chat, adapted, payload, native)
            gatherer = await apart(size, lambda: inputs.gatherer(chat, adapted))
            answer = self._answer(turn, question, adapted, size, gatherer, request)
            if chat.stream:
                writer = await apart(size, lambda: question.writer(identity))
                return await self._stream(request, turn, answer, writer, headers)
            return await self._collect(request, turn, answer, question.answer(identity), headers)
        except GatewayError as error:
            return await self._failed(request, turn, error)

    def _identity(self, asked: _Asked) -> Identity:
        fingerprint = f"fp_{asked.model.upstream}"
        return Identity(f"chatcmpl-{uuid.uuid4()}", asked.ask.model, int(self.clock()), fingerprint)

    async def _unasked(self, asked: _Asked, turn: Turn, answer: Callable[[Identity], bytes]) -> Response:
        """What no upstream need be asked for: counted in the windows, and not charged."""
        body = answer(self._identity(asked))
        await turn.forgo("unasked")
        kind = STREAM_HEADERS if asked.ask.stream else [("content-type", "application/json")]
        headers = [*kind, *admission_headers(turn.admission, released=True)]
        return Response(200, headers, body, close=lambda: self._close(asked.request, turn))

    async def _completed(self, asked: _Asked, account: str) -> tuple[ParsedRequest, Adapted]:
        """The question with what it goes on from, as the model takes it: the work that costs."""
        ask, model = asked.ask, asked.model
        found = await self.thoughts.recall(account, ask.needs) if ask.needs else {}
        question = await apart(asked.size, lambda: ask.complete(found, ()))
        size = asked.size + question.chat.recalled
        adapted = asked.adapted
        if adapted is None:
            adapted = await apart(size, lambda: self._adapted(question.chat, model))
        if adapted.missing:
            size += await self.thoughts.put_back(account, adapted.body, adapted.missing, model)
        try:
            least = question.chat.least_output
            narrowed = await inputs.fitted(adapted.body, model, size, least, self.directory)
        except InvalidRequest as error:
            raise fields.renamed(error, question.chat.names) from None
        return question, replace(adapted, narrowed=True) if narrowed else adapted

    def _quickly(self, chat: ChatRequest, model: Model) -> Adapted | None:
        """As `_adapted`; None where its schemas take more than a few steps."""
        try:
            with clean.quickly():
                return self._adapted(chat, model)
        except clean.Costly:
            return None

    def _adapted(self, chat: ChatRequest, model: Model) -> Adapted:
        """The request as the model takes it. Raises InvalidRequest in the client's names."""
        try:
            return adapt(chat, model)
        except InvalidRequest as error:
            raise fields.renamed(error, chat.names) from None

    def _answer(
        self,
        turn: Turn,
        question: ParsedRequest,
        adapted: Adapted,
        size: int,
        gatherer: ReasoningCollector | None,
        request: Request,
    ) -> _Answer:
        """The chunks as the client may see them, and what of them is kept for its next request."""
        chunks = turn.chunks(self.settings.ping_interval, self._longest(request))
        see: list[Callable[[list[Chunk]], None]] = []
        if adapted.renamed:  # first, since thoughts are kept by the arguments that the client knows
            see.append(Restorer(adapted.renamed))
        if gatherer is not None:
            see.append(gatherer.add)
        if adapted.narrowed and question.chat.seals is not None:
            see.append(name_window)

        async def settle() -> None:
            kept = await apart(size, question.kept)
            kept |= gatherer.entries() if gatherer is not None else {}
            if kept:
                await asyncio.gather(turn.settle(), self.thoughts.keep(turn.admission.key.account, kept))
            else:
                await turn.settle()

        return _Answer(tee(chunks, see) if see else chunks, settle)

    async def _stream(
        self,
        request: Request,
        turn: Turn,
        answer: _Answer,
        writer: StreamWriter,
        headers: list[tuple[str, str]],
    ) -> Response:
        """Waits for the first content, or the first ping, so that an early failure is still a status."""
        chunks = answer.chunks
        first = await anext(chunks)

        async def body() -> AsyncGenerator[bytes, None]:
            try:
                yield writer.add(first) or writer.silence()
                async with aclosing(chunks):
                    async for some in chunks:
                        if framed := writer.add(some) if some else writer.silence():
                            yield framed
                last = writer.end(turn.usage())
                await answer.settle()
            except Exception as exc:
                error = exc if isinstance(exc, GatewayError) else errors.crashed(request)
                await turn.fail()
                request.record.cause = error.cause
                yield writer.error(error)
                return
            yield last

        headers = [*STREAM_HEADERS, *headers, *admission_headers(turn.admission), *turn.answered()]
        return Response(200, headers, body(), close=lambda: self._close(request, turn))

    async def _collect(
        self,
        request: Request,
        turn: Turn,
        answer: _Answer,
        collector: JsonAnswer,
        headers: list[tuple[str, str]],
    ) -> Response:
        async for some in answer.chunks:
            collector.add(some)
        body = collector.end(turn.usage())
        headers = [
            ("content-type", "application/json"),
            *headers,
            *admission_headers(turn.admission),
            *turn.answered(),
        ]
        await answer.settle()
        return Response(200, headers, body, close=lambda: self._close(request, turn))

    async def _failed(self, request: Request, turn: Turn, error: GatewayError) -> Response:
        await turn.fail()
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
        turn.describe(request.record)
        if turn.first_content is not None:
            request.record.first_content_ms = _ms(turn.first_content - request.started)

    async def drain(self, seconds: float) -> None:
        """No new chats; what runs may finish for a while, then it is told to end."""
        self.closing = True
        await asyncio.sleep(seconds)
        for turn in list(self.turns):
            turn.interrupt(ShuttingDown())

    def _longest(self, request: Request) -> float:
        """Seconds from now."""
        left = max(request.deadline - time.monotonic(), 0.001)
        return min(self.settings.max_request or math.inf, left)

    def _begin(
        self,
        asked: _Asked,
        turn: Turn,
        chat: ChatRequest,
        adapted: Adapted,
        payload: bytes,
        native: bool,
    ) -> None:
        """Gives the turn its calls; they begin to run when its chunks are asked for."""
        settings, request, model, body = self.settings, asked.request, asked.model, adapted.body
        call = Call(model, body, payload, inputs.signed(request, chat, model), as_messages=native)
        patience = Patience(settings.first_byte_timeout, settings.idle_timeout)
        free = chat.free | {sent for sent, name in adapted.renamed.tools.items() if name in chat.free}
        at: Sequence[int | None] = range(chat.choices) if chat.choices > 1 else (None,)
        of_call = (call, asked.upstream, turn.box, patience, settings.answer_limit)
        calls = [UpstreamCall(*of_call, one, chat.stops, free) for one in at]
        known = self.catalog.find(chat.model) is not None
        turn.begin(calls, known, asked.request.id, model.window if known else None)
        request.record.overhead_ms = _ms(time.monotonic() - request.started)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
