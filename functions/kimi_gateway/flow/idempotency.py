"""Requests with an `Idempotency-Key`: the same request gets the same answer for a day, and is charged once.

The first request claims the name of its key. Its answer is kept before the client has all of it. A request
that failed, or whose client left, frees the name. If the process dies, the claim ends with its lease.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import secrets
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import field
from functools import partial
from hashlib import sha256
from typing import Any, Protocol, TypeVar, cast

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import (
    Conflict,
    GatewayError,
    IdempotencyKeyReused,
    InvalidRequest,
    RateLimited,
    Unavailable,
)
from kimi_gateway.flow.apart import LARGE, apart
from kimi_gateway.http import Request, Response
from kimi_gateway.net import jsonio
from kimi_gateway.observe import emit, log
from kimi_gateway.pivot.dialect import Dialect
from kimi_gateway.settings import Settings
from kimi_gateway.storage.answers import AnswerStore, Claim

T = TypeVar("T")
HEADER = "idempotency-key"
REPLAYED = ("idempotent-replayed", "true")
KEPT = 24 * 3600  # seconds
LARGEST = 2**20  # bytes of an answer
RETRY_AFTER = 5  # seconds, while the first request runs
PATIENCE = 2.0  # seconds that the end of an answer waits for the store
PIECE = 64 * 1024  # bytes of a repeated stream that are sent at once
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_FORM = re.compile(r"[\x21-\x7e]{1,255}")
_OF_THE_MOMENT = ("x-ratelimit-", "x-credits-")  # headers that say how things stood


class Gateway(Protocol):
    """The parts of `flow.ask.Gateway` that are used here."""

    gate: Gate
    settings: Settings
    background: set[asyncio.Task[None]]

    @property
    def clock(self) -> Callable[[], float]: ...

    @property
    def answers(self) -> Callable[[], AnswerStore]: ...

    @property
    def keeps(self) -> bool: ...

    async def answer(self, request: Request, dialect: Dialect, key: Key) -> Response: ...


async def ask(gateway: Gateway, request: Request, dialect: Dialect, key: Key) -> Response:
    """Raises the errors of `Gateway.answer`; InvalidRequest, IdempotencyKeyReused, Conflict, Unavailable."""
    try:
        name, store, held = _name(request), gateway.answers(), None
    except InvalidRequest:
        await gateway.gate.refuse(key)
        gateway.gate.wasted(key, 0)
        raise
    try:
        await gateway.gate.refuse_named(key, request.is_large)
    except GatewayError as error:  # it may have been the first request that spent the last credit
        if error.cause == "refused_too_often":
            raise
        held = await _kept(gateway, request, store, key, name)
        if held is None:
            raise
    raw = await request.body()
    fingerprint = await apart(len(raw), partial(_fingerprint, request, key, raw))
    admits = held is None
    if held is None:
        until = math.ceil(gateway.clock() + gateway.settings.lease)
        claim = Claim(fingerprint, secrets.token_hex(8), until)
        recording = Recording(gateway, store, key, name, claim)
        held = await recording.begin()
        if held is None:
            gateway.gate.named(key)
            return await _first(gateway, request, dialect, key, raw, recording)
    try:
        if admits:
            await gateway.gate.authenticate_free(request.headers, request.client)  # no admission does it
        response = await _repeated(request, held, fingerprint)
    except GatewayError as error:
        if not isinstance(error, Unavailable):
            gateway.gate.wasted(key, len(raw))
        raise
    if len(raw) >= LARGE:  # reading it again costs more than the free call
        gateway.gate.wasted(key, len(raw))
    return response


def _name(request: Request) -> str:
    """Where the answer is kept: the route and the key, which is a name of the client's own. Raises
    InvalidRequest."""
    values = request.headers.all(HEADER)
    if len(values) != 1 or not _FORM.fullmatch(values[0]):
        raise InvalidRequest(
            "Idempotency-Key must be given once, with 1 to 255 visible ASCII characters and no blanks."
            " A UUID is a good choice.",
            param=HEADER,
        )
    return sha256(f"{request.record.route}\0{values[0]}".encode()).hexdigest()[:32]


def _fingerprint(request: Request, key: Key, raw: bytes) -> str:
    """The same for two bodies that say the same, whatever the order of their members."""
    of = b"%b\0%b\0" % (str(request.record.route).encode(), key.account.encode())
    digest = sha256(of)
    try:
        if jsonio.has_too_many_values(raw):
            raise ValueError
        body = jsonio.loads_source(raw)[0]
        if len(raw) < LARGE:
            digest.update(_CANONICAL(body).encode())
        else:  # in parts, since a single call into C would hold up all other requests
            _write(body, digest.update)
    except ValueError:  # the request will be refused
        digest = sha256(of + raw)
    return digest.hexdigest()


def _write(value: Any, write: Callable[[bytes], None]) -> None:
    """Write a value as `_CANONICAL` does."""
    if isinstance(value, dict):
        mark = "{"
        for name in sorted(value):
            write(f"{mark}{_CANONICAL(name)}:".encode())
            _write(value[name], write)
            mark = ","
        write(b"}" if value else b"{}")
    elif isinstance(value, list):
        write(b"[")
        for at, each in enumerate(value):
            if at:
                write(b",")
            _write(each, write)
        write(b"]")
    else:
        write(_CANONICAL(value).encode())


async def _kept(gateway: Gateway, request: Request, store: AnswerStore, key: Key, name: str) -> Claim | None:
    """The answer that a key may have although it is refused. The bucket of free calls bounds the question."""
    try:
        await gateway.gate.authenticate_free(request.headers, request.client)
        held = await store.find_answer(key.account, name, int(gateway.clock()))
    except RateLimited:
        return None
    except StoreDown as exc:
        raise _down(exc) from exc
    return held if held is not None and held.done else None


def _down(exc: StoreDown) -> Unavailable:
    emit(exc.cause, logging.ERROR, step="claim_answer", detail=str(exc))
    text = "The gateway cannot look up Idempotency-Key at present."
    return Unavailable(text, retry_after=1, cause=exc.cause)


async def _repeated(request: Request, held: Claim, fingerprint: str) -> Response:
    if held.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for another request less than 24 hours ago. Use a new key for each"
            " request, and the same one only to repeat it unchanged.",
            param=HEADER,
        )
    if not held.done:
        raise Conflict(
            "The first request with this Idempotency-Key is still running. Repeat the request later.",
            param=HEADER,
            retry_after=RETRY_AFTER,
            cause="in_flight",
        )
    if held.answer is None:
        raise Conflict(
            "The request with this Idempotency-Key was answered completely and charged once, but its answer"
            " was not kept: it is larger than 1 MiB, or the gateway keeps no answers. Use a new key to ask"
            " again.",
            param=HEADER,
            cause="answer_not_kept",
        )
    head, _, body = (await apart(len(held.answer), partial(zlib.decompress, held.answer))).partition(b"\n")
    told = jsonio.loads(head)
    request.record.outcome = "replayed"
    headers = [*((name, value) for name, value in told["headers"]), REPLAYED]
    return Response(200, headers, _pieces(body) if told["stream"] else body)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


async def _first(
    gateway: Gateway, request: Request, dialect: Dialect, key: Key, raw: bytes, recording: Recording
) -> Response:
    async def body() -> bytes:
        return raw

    request.body, request.recording = body, recording
    try:
        response = await gateway.answer(request, dialect, key)
        if response.status != 200:
            await recording.end()
            return response
    except BaseException:
        await recording.end()
        raise
    finish = response.close

    async def close() -> None:
        try:
            await finish()
        finally:
            await recording.end()

    response.close = close
    if not isinstance(response.body, bytes):
        response.body, response.direct = recording.tapped(response.body), None  # it records what is in `body`
    return response


@dataclass(slots=True)
class Recording:
    """The answer to a first request, up to LARGEST bytes, and its claim."""

    gateway: Gateway
    store: AnswerStore
    key: Key
    name: str
    claim: Claim
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _stream: bool = False
    _keeping: asyncio.Task[bool] | None = None
    _renewing: asyncio.Task[None] | None = None

    async def begin(self) -> Claim | None:
        """Claim the name. Returns who has it, None if this request does. Raises Unavailable."""
        self._renewing = asyncio.create_task(self._renew())
        try:
            now = int(self.gateway.clock())
            held = await self.store.claim_answer(self.key.account, self.name, self.claim, now)
        except BaseException as exc:
            await self.end()  # the claim may be written although the store did not say so
            if isinstance(exc, StoreDown):
                raise _down(exc) from exc
            raise
        if held is not None:
            self._renewing.cancel()
        return held

    async def tapped(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._stream = True
        async with aclosing(body):
            async for piece in body:
                if self._keeping is None:
                    self._add(piece)
                yield piece

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LARGEST:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    async def complete(self, headers: Sequence[tuple[str, str]], last: bytes) -> None:
        """Keep the answer, whose last bytes the client does not have yet. A slow store is waited for a moment
        only."""
        self._add(last)
        kept = [(name, value) for name, value in headers if not name.startswith(_OF_THE_MOMENT)]
        self._keeping = self._behind(self._keep(kept))
        await asyncio.wait({self._keeping}, timeout=PATIENCE)

    async def _keep(self, headers: Sequence[tuple[str, str]]) -> bool:
        answer = None
        if self.gateway.keeps and self._size <= LARGEST:
            head = jsonio.dumps({"headers": headers, "stream": self._stream}) + b"\n"
            answer = await apart(self._size, partial(zlib.compress, head + b"".join(self._pieces)))
        self._pieces.clear()
        return await self._wrote(answer)

    async def _wrote(self, answer: bytes | None) -> bool:
        """Whether the store has it."""
        until = int(self.gateway.clock()) + KEPT
        try:
            return await self.store.keep_answer(self.key.account, self.name, self.claim.owner, answer, until)
        except StoreDown as exc:
            emit("answer_not_kept", logging.WARNING, account=self.key.account, detail=str(exc))
        except Exception:  # the answer is complete without it and is being charged
            log.exception("crash", extra={"fields": {"step": "keep_answer", "account": self.key.account}})
        return False

    async def end(self) -> None:
        """The request has ended; free its name if it is not complete. May be called again."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait({self._behind(self._end())}, timeout=PATIENCE)

    async def _end(self) -> None:
        if self._keeping is not None:
            if not await self._keeping:
                await self._wrote(None)  # it must not be charged again
            return
        try:
            await self.store.drop_claim(self.key.account, self.name, self.claim.owner)
        except StoreDown as exc:
            emit(exc.cause, logging.WARNING, step="drop_claim", account=self.key.account, detail=str(exc))

    async def _renew(self) -> None:
        lease = self.gateway.settings.lease
        while True:
            await asyncio.sleep(lease / 3)
            try:
                until = math.ceil(self.gateway.clock() + lease)
                await self.store.renew_claim(self.key.account, self.name, self.claim.owner, until)
            except StoreDown as exc:
                emit(exc.cause, logging.WARNING, step="renew_claim", detail=str(exc))

    def _behind(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that lasts, whatever becomes of the request."""
        task, background = asyncio.create_task(work), cast("set[asyncio.Task[T]]", self.gateway.background)
        background.add(task)
        task.add_done_callback(background.discard)
        return task
