"""The flow of a request on one screen: authenticate → refuse → read → admit → complete → stream → settle.

Work before admission is bounded by the size of the body; expensive work comes after it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from kimi_gateway.accounts.gate import Gate, admission_headers
from kimi_gateway.accounts.ledger import Ledger, Reservation
from kimi_gateway.accounts.pardons import Pardons
from kimi_gateway.accounts.values import Key
from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects import errors
from kimi_gateway.errors import GatewayError, InvalidRequest, ShuttingDown, Unavailable
from kimi_gateway.flow import inputs
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attachments import NoFiles, resolve
from kimi_gateway.flow.attempts import Patience, UpstreamCall
from kimi_gateway.flow.conversation_cache import ConversationCache, tee
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Request, Response
from kimi_gateway.pivot import fields, ignored, placement
from kimi_gateway.pivot.attachments import Resolver
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.dialect import Ask, Dialect, JsonAnswer, ParsedRequest, StreamWriter
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.provider import Call, Costly, Prepared, Provider, Upstream
from kimi_gateway.providers.registry import Registry, Resolved
from kimi_gateway.settings import Settings

COST = 1  # credits of one request, whatever its model (docs/contract.md, Limits and credits)
STREAM_HEADERS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request before admission. `prepared` is set if that was cheap; `size` is in bytes."""

    request: Request
    ask: Ask
    resolved: Resolved
    upstream: Upstream
    prepared: Prepared | None
    size: int


@dataclass(frozen=True, slots=True)
class _Question:
    """An admitted request, complete and adapted to its model. `narrowed`: its output limit was lowered to
    what the window leaves. `token`: the id of the only upstream token that has its files."""

    parsed: ParsedRequest
    prepared: Prepared
    narrowed: bool
    token: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """`settle` charges and stores, before the client learns that it has all `chunks`."""

    chunks: AsyncGenerator[list[Chunk], None]
    settle: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Gateway:
    gate: Gate
    ledger: Ledger
    registry: Registry
    thoughts: ConversationCache
    settings: Settings
    clock: Callable[[], float] = time.time
    turns: set[Turn] = field(default_factory=set)
    background: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False
    pardons: Pardons = field(default_factory=Pardons)
    files: Resolver = field(default_factory=NoFiles)

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
            ask, model = asked.ask, asked.resolved.model
            reservation = self.ledger.reserve(self.gate, key, COST, model.id, ask.model, ask.choices)
            async with reservation:
                return await self._serve(asked, reservation)
        except GatewayError as error:  # such errors occur only before admission
            if not isinstance(error, Unavailable):
                self.gate.wasted(key, size)
            raise

    async def _read(self, request: Request, dialect: Dialect, raw: bytes, key: Key) -> _Asked:
        """Find the faults of a body that take little work."""
        ask = await apart(len(raw), partial(dialect.read, raw))
        request.record.model, request.record.stream = ask.model[:80], ask.stream

        async def may_ask() -> bool:
            await self.gate.require_credit(key)
            return True

        resolved = await self.registry.resolve(ask.model, may_ask)
        upstream, prepared = resolved.upstream, None
        if not ask.needs:
            prepare = partial(_prepared, upstream.provider, request, resolved.model, cheaply=True)
            with suppress(Costly):  # then it is done after admission
                prepared = await apart(len(raw), lambda: prepare(ask.complete({}, ()).chat))
            if attached := ask.attachments({}):
                placement.refused(attached, resolved.model)
                prepared = None  # all that is known by now is that nothing else is wrong
        if self.closing:
            raise ShuttingDown
        return _Asked(request, ask, resolved, upstream, prepared, len(raw))

    async def _serve(self, asked: _Asked, reservation: Reservation) -> Response:
        """The caller of a returned response closes the turn; without a response it is closed here."""
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
            question = await self._completed(asked, turn)
            parsed, size = question.parsed, question.parsed.size
            names = ignored.named(parsed.chat.ignored, question.prepared.ignored)
            if names:
                request.record.ignored = names
            headers = [(ignored.HEADER, ", ".join(names))] if names else []
            identity = self._identity(asked)
            call = await apart(size, question.prepared.call)
            if question.token is not None:
                call = replace(call, only=question.token)
            self._begin(asked, turn, parsed.chat, call)
            answer = self._answer(turn, question, request)
            if parsed.chat.stream:
                writer = await apart(size, lambda: parsed.writer(identity, question.narrowed))
                return await self._stream(request, turn, answer, writer, headers)
            collector = parsed.answer(identity, question.narrowed)
            return await self._collect(request, turn, answer, collector, headers)
        except GatewayError as error:
            return await self._failed(request, turn, error)

    def _identity(self, asked: _Asked) -> Identity:
        fingerprint = f"fp_{asked.resolved.model.upstream}"
        return Identity(f"chatcmpl-{uuid.uuid4()}", asked.ask.model, int(self.clock()), fingerprint)

    async def _unasked(self, asked: _Asked, turn: Turn, answer: Callable[[Identity], bytes]) -> Response:
        """An answer without an upstream call: counted in the windows and not charged."""
        body = answer(self._identity(asked))
        await turn.forgo("unasked")
        kind = STREAM_HEADERS if asked.ask.stream else [("content-type", "application/json")]
        headers = [*kind, *admission_headers(turn.admission, released=True)]
        return Response(200, headers, body, close=lambda: self._close(asked.request, turn))

    async def _completed(self, asked: _Asked, turn: Turn) -> _Question:
        """The request with the content that it refers to and attaches, adapted to its model: the expensive
        work."""
        ask, resolved, prepared = asked.ask, asked.resolved, asked.prepared
        account = turn.admission.key.account
        found = await self.thoughts.recall(account, ask.needs) if ask.needs else {}
        attached = await apart(asked.size if ask.needs else 0, lambda: ask.attachments(found))
        resolution = await resolve(self.files, account, attached, resolved.model, turn.held)
        parsed = await apart(asked.size, lambda: ask.complete(found, resolution.results))
        size, chat = parsed.size, parsed.chat
        if prepared is None:
            prepare = partial(_prepared, asked.upstream.provider, asked.request, resolved.model)
            prepared = await apart(size, lambda: prepare(chat))
        if missing := prepared.missing:
            size += await self.thoughts.restore(account, missing)
        try:
            narrowed = await inputs.fitted(prepared.body, resolved, size, chat.least_output)
        except InvalidRequest as error:
            raise fields.renamed(error, chat.names) from None
        return _Question(parsed, prepared, narrowed, resolution.token)

    def _answer(self, turn: Turn, question: _Question, request: Request) -> _Answer:
        """The chunks for the client, and what is stored of them for its next request."""
        chunks = turn.chunks(self.settings.ping_interval, self._longest(request))
        parsed, taps = question.parsed, question.prepared.taps()

        async def settle() -> None:
            kept = await apart(parsed.size, parsed.kept)
            for tap in taps:
                kept |= tap.kept()
            if kept:
                await asyncio.gather(turn.settle(), self.thoughts.keep(turn.admission.key.account, kept))
            else:
                await turn.settle()

        return _Answer(tee(chunks, taps) if taps else chunks, settle)

    async def _stream(
        self,
        request: Request,
        turn: Turn,
        answer: _Answer,
        writer: StreamWriter,
        headers: list[tuple[str, str]],
    ) -> Response:
        """Waits for the first content or the first ping, so that an early failure is still a status."""
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
        """Accept no new chats; running ones may finish within `seconds`, then they get an error."""
        self.closing = True
        await asyncio.sleep(seconds)
        for turn in list(self.turns):
            turn.interrupt(ShuttingDown())

    def _longest(self, request: Request) -> float:
        """The longest duration of the answer, in seconds from now."""
        left = max(request.deadline - time.monotonic(), 0.001)
        return min(self.settings.max_request or math.inf, left)

    def _begin(self, asked: _Asked, turn: Turn, chat: ChatRequest, call: Call) -> None:
        """Give the turn its calls; they start when its chunks are read."""
        settings, request, resolved = self.settings, asked.request, asked.resolved
        patience = Patience(settings.first_byte_timeout, settings.idle_timeout)
        at: Sequence[int | None] = range(chat.choices) if chat.choices > 1 else (None,)
        of_call = (call, asked.upstream, turn.box, patience, settings.answer_limit)
        calls = [UpstreamCall(*of_call, one, chat.stops) for one in at]
        turn.begin(calls, resolved.known, request.id, resolved.window)
        request.record.overhead_ms = _ms(time.monotonic() - request.started)


def _prepared(
    provider: Provider, request: Request, model: Model, chat: ChatRequest, cheaply: bool = False
) -> Prepared:
    """Prepare a chat. Raises InvalidRequest in the client's names, and Costly."""
    try:
        return provider.prepare(chat, model, request.headers, cheaply)
    except InvalidRequest as error:
        raise fields.renamed(error, chat.names) from None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
