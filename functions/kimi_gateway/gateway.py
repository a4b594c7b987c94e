"""The flow of a request on one screen: authenticate → read → adapt → admit → stream → settle."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from kimi_gateway.accounts.gate import Gate, admission_headers
from kimi_gateway.accounts.ledger import Ledger
from kimi_gateway.accounts.values import Admission
from kimi_gateway.attempts import Item, Patience, UpstreamCall
from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects import errors, fields, tokens
from kimi_gateway.dialects.anthropic import native
from kimi_gateway.dialects.anthropic.sequence import name_window
from kimi_gateway.dialects.dialect import Dialect, JsonAnswer, Question, StreamWriter
from kimi_gateway.dialects.openai.adapt import Adapted, adapt, fit
from kimi_gateway.dialects.openai.chunks import Chunk, Identity
from kimi_gateway.dialects.openai.reasoning import Gatherer
from kimi_gateway.dialects.openai.request import ChatRequest
from kimi_gateway.dialects.openai.tool_names import Restorer
from kimi_gateway.errors import GatewayError, InvalidRequest, ShuttingDown
from kimi_gateway.net import jsonio
from kimi_gateway.net.mailbox import Mailbox
from kimi_gateway.observe import log
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.moonshot import NONCE
from kimi_gateway.providers.provider import Call, Upstream
from kimi_gateway.settings import Settings
from kimi_gateway.thoughts import Thoughts, seen_by
from kimi_gateway.turn import Turn
from kimi_gateway.values import Request, Response, sendable

LONGEST_NONCE = 512
COST = 1  # credits of one request, whatever its model (docs/contract.md, Limits and credits)
STREAM_HEADERS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]


@dataclass(frozen=True, slots=True)
class _Answer:
    """`complete` settles and keeps, before the client learns that it has all of the `chunks`."""

    chunks: AsyncGenerator[list[Chunk], None]
    complete: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Gateway:
    gate: Gate
    ledger: Ledger
    catalog: Catalog
    directory: Directory
    thoughts: Thoughts
    upstream: Callable[[], Upstream]
    settings: Settings
    clock: Callable[[], float] = time.time
    turns: set[Turn] = field(default_factory=set)
    background: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False

    async def recall(self, account: str, names: Sequence[str]) -> dict[str, bytes]:
        """What is kept for the account of what a request names. Raises Unavailable."""
        return await self.thoughts.recall(account, names)

    async def ask(self, request: Request, dialect: Dialect) -> Response:
        key = await self.gate.authenticate(request.headers)
        request.notes.update(key=key.id, account=key.account)
        raw = await request.body()
        question = await dialect.read(raw, key.account)
        ask = question.chat
        request.notes.update(model=ask.model[:80], stream=ask.stream)
        if ask.ignored:
            request.notes["ignored"] = ask.ignored
        model = await self.directory.resolve(ask.model, self.catalog)
        try:
            adapted = await self._adapted(ask, model, key.account, len(raw) + ask.recalled)
        except InvalidRequest as error:
            raise fields.renamed(error, ask.names) from None
        if self.closing:
            raise ShuttingDown
        upstream = self.upstream()
        # Not the request's id: that may be the client's, and admission gives one id one reservation.
        admission = await self.gate.admit(secrets.token_hex(16), key, COST)
        turn = self._turn(request, admission, ask, model, adapted.body, upstream)
        try:
            ignored = ", ".join((*ask.ignored, *adapted.ignored))
            headers = [("x-param-ignored", ignored)] if ignored else []
            identity = Identity(
                f"chatcmpl-{uuid.uuid4()}", ask.model, int(self.clock()), f"fp_{model.upstream}"
            )
            answer = self._answer(turn, question, adapted, self._longest(request))
            if ask.stream:
                return await self._stream(request, turn, answer, question.writer(identity), headers)
            return await self._collect(request, turn, answer, question.answer(identity), headers)
        except Exception:
            await turn.fail()
            await self._close(request, turn)
            raise
        except BaseException:
            await asyncio.shield(self._close(request, turn))
            raise

    async def _adapted(self, ask: ChatRequest, model: Model, account: str, size: int) -> Adapted:
        """The request as the model takes it. Raises InvalidRequest in the pivot's names."""
        adapted = adapt(ask, model)
        if adapted.missing:
            size += await self.thoughts.put_back(account, adapted.body, adapted.missing, model)
        if await self._fit(adapted.body, model, size, ask.least_output):
            return replace(adapted, narrowed=True)
        return adapted

    def _answer(self, turn: Turn, question: Question, adapted: Adapted, longest: float) -> _Answer:
        """The chunks as the client may see them, and what of them is kept for its next request."""
        chunks = turn.chunks(self.settings.ping_interval, longest)
        gatherer = Gatherer(question.chat.body["messages"]) if adapted.remembers else None
        see: list[Callable[[list[Chunk]], None]] = []
        if gatherer is not None:
            see.append(gatherer.add)
        if adapted.narrowed and question.chat.seals is not None:
            see.append(name_window)
        if adapted.originals:
            see.append(Restorer(adapted.originals))

        async def complete() -> None:
            kept = question.kept() | (gatherer.entries() if gatherer is not None else {})
            keeping = [self.thoughts.keep(turn.admission.key.account, kept)] if kept else []
            await asyncio.gather(turn.settle(), *keeping) if keeping else await turn.settle()

        return _Answer(seen_by(chunks, see) if see else chunks, complete)

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
        try:
            first = await anext(chunks)
        except GatewayError as error:
            return await self._failed(request, turn, error)

        async def body() -> AsyncGenerator[bytes, None]:
            yield writer.add(first) or writer.silence()
            try:
                async with aclosing(chunks):
                    async for some in chunks:
                        if framed := writer.add(some) if some else writer.silence():
                            yield framed
            except Exception as exc:
                error = exc if isinstance(exc, GatewayError) else crashed(request)
                await turn.fail()
                request.notes["cause"] = error.cause
                yield writer.error(error)
                return
            await answer.complete()
            yield writer.end(turn.usage())

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
        try:
            async for some in answer.chunks:
                collector.add(some)
        except GatewayError as error:
            return await self._failed(request, turn, error)
        await answer.complete()
        body = collector.end(turn.usage())
        headers = [
            ("content-type", "application/json"),
            *headers,
            *admission_headers(turn.admission),
            *turn.answered(),
        ]
        return Response(200, headers, body, close=lambda: self._close(request, turn))

    async def _failed(self, request: Request, turn: Turn, error: GatewayError) -> Response:
        await turn.fail()
        response = error_response(error, request)
        response.headers += admission_headers(turn.admission, released=True)
        response.close = lambda: self._close(request, turn)
        request.notes["cause"] = error.cause
        return response

    async def _close(self, request: Request, turn: Turn) -> None:
        await turn.close()
        self.turns.discard(turn)
        request.notes.update(turn.facts())
        if turn.first_content is not None:
            request.notes["first_content_ms"] = _ms(turn.first_content - request.started)

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

    def _turn(
        self,
        request: Request,
        admission: Admission,
        ask: ChatRequest,
        model: Model,
        body: dict[str, Any],
        upstream: Upstream,
    ) -> Turn:
        settings, box = self.settings, Mailbox[Item]()
        # The vendor's signature covers the model, so it is asked for only where that was not rewritten.
        nonces = request.headers.all(NONCE) if ask.model == model.upstream else []
        signed = len(nonces) == 1 and len(nonces[0]) <= LONGEST_NONCE and sendable(nonces[0])
        as_messages = ask.seals is not None and model.messages and settings.anthropic == "native"
        if as_messages:
            payload = native.payload(body, ask.seals or {})
        else:
            payload = jsonio.rewrite(body, ask.source) if ask.source else jsonio.dumps(body)
        headers = {NONCE: nonces[0]} if signed else {}
        call = Call(model, body, payload, headers, as_messages=as_messages)
        patience = Patience(settings.first_byte_timeout, settings.idle_timeout)
        calls = [
            UpstreamCall(call, upstream, box, patience, index if ask.choices > 1 else None, ask.stops)
            for index in range(ask.choices)
        ]
        known = self.catalog.find(ask.model) is not None
        window = model.window if known else None
        turn = Turn(admission, self.ledger, model.id, calls, box, known, self.background, window)
        self.turns.add(turn)
        request.notes["overhead_ms"] = _ms(time.monotonic() - request.started)
        return turn

    async def _fit(self, body: dict[str, Any], model: Model, size: int, least: int) -> bool:
        """Keep input and output inside the window; whether the output was lowered for it. A token has a byte
        at least, so most bodies need no count. An estimate may be wrong by half; where that matters the
        upstream's own count is asked for."""
        output = body.get("max_completion_tokens", model.upstream_default)
        texts_only = all(type(message.get("content")) is not list for message in body["messages"])
        if (size // 2 if texts_only else size) + output <= model.window:  # a text's estimate is its bytes / 4
            return False
        tools = tokens.of_messages([], body.get("tools"))
        estimate = tokens.of_messages(body["messages"]) + tools
        most = 2 * estimate + 64
        if most + output <= model.window:
            return False
        if most > model.window / 2:
            most = await self.directory.count(model, body["messages"], estimate - tools) + tools
        return fit(body, model, most, least)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def crashed(request: Request) -> GatewayError:
    """A fault of our own, logged while it is being handled, as the client sees it."""
    log.exception("crash", extra={"fields": {"id": request.id, "path": request.path[:200]}})
    return GatewayError("The gateway met an internal error.")


def error_response(error: GatewayError, request: Request) -> Response:
    headers = [("content-type", "application/json"), *error.headers, *errors.retry_headers(error)]
    if error.retry_after is not None:
        headers.append(("retry-after", str(error.retry_after)))
    body = errors.body(error, errors.dialect_of(request.path), request.id)
    return Response(error.status, headers, jsonio.dumps(body))
