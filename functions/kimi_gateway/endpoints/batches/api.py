"""The routes of batches: create, list, retrieve, cancel. Each account sees its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kimi_gateway.accounts.batches import BatchRecord, TooManyBatches, batch_id
from kimi_gateway.accounts.files import FileRecord
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Key, Limits
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate_for_files
from kimi_gateway.endpoints.batches import asked, shape
from kimi_gateway.endpoints.batches.asked import Asked
from kimi_gateway.endpoints.batches.following import LONGER, Following, Stores
from kimi_gateway.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from kimi_gateway.flow.ask import Gateway
from kimi_gateway.http import Request, Response
from kimi_gateway.observe import emit
from kimi_gateway.pivot import ignored
from kimi_gateway.providers.batches import Batches, RunsBatches
from kimi_gateway.providers.failures import CLIENTS_FAULT, OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.provider import Token, Upstream

COST = 1  # of the admission; an unlimited account reserves nothing
MOST_RUNNING = 50  # batches of one account; its leases are in one item of the table
LOOKED_FOR = 60  # seconds after which a batch whose answer was lost is looked for
AT_ONCE = 4  # batches of a list that are looked at together
ANYBODY = "*"  # in the setting
REFUSED = OTHER_TOKEN | CLIENTS_FAULT | {"connect"}  # causes after which the provider surely runs no batch
OUT = ("authentication", "quota", "permission", "bound")  # causes for which another upload is the way
T = TypeVar("T")


@dataclass(slots=True)
class BatchesApi:
    """`allowed` are the ids of keys that may run batches, or ANYBODY."""

    gate: Gate
    store: Stores
    upstream: Callable[[], Upstream]
    following: Following
    clock: Callable[[], float]
    allowed: tuple[str, ...]

    async def create(self, request: Request) -> Response:
        key = await self._allowed(request)
        await self.gate.refuse(key, request.is_large)
        batches = self._batches()
        size = 0
        try:
            body = await request.body()
            size = len(body)
            wanted = asked.read(body)
            file = await self._input(key, wanted.input)
            token = self._token(file)
            record = await self._begun(request, key, wanted, token)
        except GatewayError as error:
            if not isinstance(error, Unavailable):
                self.gate.wasted(key, size)
            raise
        if not record.upstream:
            record = await self._created(request, batches, record, file, token)
        response = answer(shape.batch(record))
        if names := ignored.named(wanted.ignored):
            request.record.ignored = names
            response.headers.append((ignored.HEADER, ", ".join(names)))
        return response

    async def list(self, request: Request) -> Response:
        key = await self._allowed(request)
        records = await _stored(self.store.batches(key.account, self._now()))
        shown, more = shape.cut(records, request.query)
        places = asyncio.Semaphore(AT_ONCE)

        async def looked(record: BatchRecord) -> BatchRecord:
            async with places:
                try:
                    return await _stored(self.following.look(record))
                except UpstreamFailure:
                    return record  # as it was seen last

        return answer(shape.page(await asyncio.gather(*map(looked, shown)), more))

    async def retrieve(self, request: Request, batch: str) -> Response:
        record = await self._record(await self._allowed(request), batch)
        try:
            record = await _stored(self.following.look(record))
        except UpstreamFailure as failure:
            raise _shown(failure, request) from failure
        return answer(shape.batch(record))

    async def cancel(self, request: Request, batch: str) -> Response:
        record = await self._record(await self._allowed(request), batch)
        batches = self._batches()
        try:
            record = await _stored(self.following.look(record))
            status = record.state.get("status")
            token = self.following.token(record.token)
            if record.booked or not record.upstream or token is None:
                raise Conflict(
                    f"Batch {record.id} cannot be cancelled: its status is {status}.", param="batch_id"
                )
            told = await batches.cancel(token, record.upstream)
            record = await _stored(self.following.seen(record, told))
        except UpstreamFailure as failure:
            raise _shown(failure, request, record) from failure
        return answer(shape.batch(record))

    async def _allowed(self, request: Request) -> Key:
        """The caller's key. Raises PermissionDenied, and the errors of authentication."""
        key = await authenticate_for_files(self.gate, request)
        if not {key.id, ANYBODY} & set(self.allowed):
            raise PermissionDenied("This API key may not run batches. Ask the operator, who can allow it.")
        if not await self.gate.is_unlimited(key):
            raise PermissionDenied(
                "Batches are for unlimited accounts only: what a batch costs is known when it ends, so"
                " credits cannot pay for it. Send the requests one by one."
            )
        if any(each.budgets or each.shared for each in key.line):
            raise PermissionDenied(
                "Batches are for accounts and keys without budgets: what a batch costs is known when it ends."
                " Send the requests one by one."
            )
        if any(map(_is_limited, key.line)):
            raise PermissionDenied(
                "This API key has limits of its own or may use certain models only. A batch would pass by"
                " them; use another key, or send the requests one by one."
            )
        return key

    async def _input(self, key: Key, id: str) -> FileRecord:
        record = await _stored(self.store.file(key.account, id, self._now()))
        if record is None:
            raise NotFound(f"There is no file {id[:80]}.", param="input_file_id")
        if record.uploaded_as != "batch":
            raise InvalidRequest(
                f"input_file_id: file {record.id} was not uploaded with the purpose batch.",
                param="input_file_id",
            )
        if record.state != "ready":
            raise Conflict(f"File {record.id} is not processed.", param="input_file_id")
        return record

    def _token(self, file: FileRecord) -> Token:
        token = self.following.token(file.token)
        if token is None:
            raise Conflict(
                f"File {file.id} is in an upstream account that this gateway no longer uses."
                " Upload it again.",
                param="input_file_id",
                cause="token_gone",
            )
        return token

    async def _begun(self, request: Request, key: Key, wanted: Asked, token: Token) -> BatchRecord:
        """A new record, or that of an earlier try whose answer was lost: a repeated request starts no second
        batch."""
        now = self._now()
        running = [each for each in await _stored(self.store.batches(key.account, now)) if not each.booked]
        for each in running:
            if each.input == wanted.input and not each.upstream:
                return await self._found(request, each)
        record = BatchRecord(
            batch_id(now), key.account, key.id, token.id, now, wanted.input, wanted.window,
            now + wanted.seconds + LONGER, now + LOOKED_FOR, metadata=wanted.metadata,
        )  # fmt: skip
        admission = await self.gate.admit(record.id, key, COST)
        try:
            await _stored(self.store.add_batch(record, MOST_RUNNING))
        except TooManyBatches as full:
            await _stored(self.store.release(admission, "batch", True, now))
            raise InvalidRequest(
                f"The account has {full.running} batches that have not ended, and may have {MOST_RUNNING}."
            ) from full
        await _stored(self.store.renew([admission], record.lease))
        return record

    async def _found(self, request: Request, record: BatchRecord) -> BatchRecord:
        """A record whose batch may or may not run. Raises Conflict while its creation may still be on its
        way."""
        try:
            record = await _stored(self.following.look(record))
        except UpstreamFailure as failure:
            raise _shown(failure, request) from failure
        if not record.upstream and self._now() - record.created < LOOKED_FOR:
            raise Conflict(
                f"Batch {record.id} of this file is being created. Try again in a minute.",
                param="input_file_id",
            )
        return record

    async def _created(
        self, request: Request, batches: Batches, record: BatchRecord, file: FileRecord, token: Token
    ) -> BatchRecord:
        """Whatever happens, a batch that the provider may run has a record."""
        try:
            told = await batches.create(token, file.upstream, record.window, record.id)
        except UpstreamFailure as failure:
            if failure.cause in REFUSED:
                await _stored(self._undone(record))
            if failure.cause == "authentication":
                self.upstream().tokens.learn(token, "", failure)
            raise _shown(failure, request, file) from failure
        return await _stored(self.following.seen(record, told))

    async def _undone(self, record: BatchRecord) -> None:
        await self.store.remove_batch(record)
        await self.store.release(record.admission(), "batch", True, self._now())

    async def _record(self, key: Key, id: str) -> BatchRecord:
        """Raises NotFound, also for the batch of another account."""
        record = await _stored(self.store.batch(key.account, id, self._now()))
        if record is None:
            raise NotFound(f"There is no batch {id[:80]}.", param="batch_id")
        return record

    def _batches(self) -> Batches:
        provider = self.upstream().provider
        if not isinstance(provider, RunsBatches):
            raise NotFound("This gateway runs no batches.", cause="no_batches")
        return provider.batches

    def _now(self) -> int:
        return int(self.clock())


def _is_limited(key: Key) -> bool:
    """Whether a key has a limit that a batch would pass by."""
    return bool(key.models) or key.limits != Limits() or key.in_flight is not None or key.tokens is not None


def of_gateway(gateway: Gateway, store: Stores, upstream: Callable[[], Upstream]) -> BatchesApi:
    following = Following(store, upstream, gateway.registry, gateway.clock, gateway.background)
    return BatchesApi(gateway.gate, store, upstream, following, gateway.clock, gateway.settings.batches)


async def _stored(step: Awaitable[T]) -> T:
    """Raises Unavailable where the store is down."""
    try:
        return await step
    except StoreDown as exc:
        emit(exc.cause, logging.ERROR, step="batches", detail=str(exc))
        raise Unavailable(
            "The gateway cannot read its batches at present.", retry_after=1, cause=exc.cause
        ) from exc


def _shown(
    failure: UpstreamFailure, request: Request, about: BatchRecord | FileRecord | None = None
) -> GatewayError:
    """The client's error. The vendor's words name what the call was `about` by the vendor's id, which the
    client does not know."""
    if failure.cause in OUT:
        return Conflict(
            "The upstream account with the files of this batch is not available now. Try again later, or"
            " upload the file again.",
            param="input_file_id",
            cause=f"upstream_{failure.cause}",
        )
    if failure.cause == "model":  # the platform's 404
        return NotFound("The upstream does not have this batch or its file.", cause="upstream_batch")
    error = failure.shown(request=request.id)
    if about is not None and about.upstream:
        error.message = error.message.replace(about.upstream, about.id)
    return error
