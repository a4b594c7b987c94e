"""Follows batches at the provider until they end, names their files, and books their cost once.

A batch is admitted as one request, under a lease that lasts as long as it may run. Its end settles that
lease. A lease can be settled once, so several processes may see the end at the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from kimi_gateway.accounts.batches import BatchRecord, BatchStore
from kimi_gateway.accounts.files import MOST_FILES, FileRecord, FileStore, NoRoom, Room, file_id
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.usage import bounded
from kimi_gateway.accounts.values import NEVER, Usage
from kimi_gateway.catalog.models import price_of
from kimi_gateway.endpoints.batches.saving import ReadElsewhere, Saving
from kimi_gateway.endpoints.batches.tally import Tally, of_lines, steady
from kimi_gateway.errors import GatewayError
from kimi_gateway.observe import emit
from kimi_gateway.providers.batches import PRICE, RunsBatches, UpstreamBatch
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.files import KeepsFiles
from kimi_gateway.providers.provider import Token, Upstream
from kimi_gateway.providers.registry import Registry

EVERY = 300  # seconds between two looks at a running batch, where nobody asks for it
LOST = 900  # seconds after which a batch that the provider does not know is given up
UNREACHABLE = 30 * 86_400  # seconds after which a batch of a token that is gone is given up
KEPT = 30 * 86_400  # seconds for which an ended batch is shown
LONGER = 3 * 86_400  # seconds of a lease beyond the batch's window
AT_ONCE = 20  # batches of one sweep
READ_WITHIN = 6 * 3_600.0  # seconds for an output file, at one go
UNREAD = 3 * 86_400  # seconds after which an output that no reading comes further in is booked as far as read
READ_TOGETHER = 4  # output files at a time; each holds at most one line, of up to 16 MiB
ROOM = Room(MOST_FILES, 2**60)  # results are named even if the account's own room is full
_UNKNOWN = "The upstream does not know this batch."


class Stores(Store, BatchStore, FileStore, Protocol):
    """Accounts, batches and files."""


class Following:
    """`background` gets the bookings that run behind an answer."""

    def __init__(
        self,
        store: Stores,
        upstream: Callable[[], Upstream],
        registry: Registry,
        clock: Callable[[], float],
        background: set[asyncio.Task[None]],
    ) -> None:
        self._background = background
        self._store = store
        self._upstream = upstream
        self._registry = registry
        self._clock = clock
        self._booking: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(READ_TOGETHER)

    def token(self, id: str) -> Token | None:
        return next((token for token in self._upstream().tokens.all() if token.id == id), None)

    async def look(self, record: BatchRecord, patient: bool = False) -> BatchRecord:
        """The record as the provider sees the batch now. If it has ended, its cost is booked behind the
        caller; a `patient` booking goes on where another process is further. Raises UpstreamFailure,
        StoreDown."""
        if record.booked:
            return record
        provider, token = self._upstream().provider, self.token(record.token)
        if token is None or not isinstance(provider, RunsBatches):
            raise UpstreamFailure("bound", "the batch's token is gone")
        batches = provider.batches
        if record.upstream:
            told = await batches.get(token, record.upstream)
        else:
            told = await batches.tagged(token, record.id)
        if told is not None:
            return await self.seen(record, told, patient)
        if self._clock() - record.created < LOST:
            return await self._changed(record, replace(record, due=self._later()))
        return await self._given_up(record, _UNKNOWN)

    async def seen(self, record: BatchRecord, told: UpstreamBatch, patient: bool = False) -> BatchRecord:
        """Keep what the provider told. Raises StoreDown."""
        state = {**told.told, "status": told.status}
        record = await self._changed(
            record,
            replace(
                record,
                upstream=told.id,
                told=json.dumps(state, ensure_ascii=False),
                output=record.output or await self._named(record, told.output, "output"),
                errors=record.errors or await self._named(record, told.errors, "errors"),
                due=int(self._clock()) if told.ended else self._later(),
            ),
        )
        if told.ended and not record.booked and record.id not in self._booking:
            task = asyncio.create_task(self._booked_quietly(record, told, patient))
            self._booking[record.id] = task
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return record

    async def _changed(self, old: BatchRecord, new: BatchRecord) -> BatchRecord:
        """`new`, or the record as another process has left it."""
        if old == new or await self._store.change_batch(old, new):
            return new
        return await self._store.batch(old.account, old.id, int(self._clock())) or new

    def _later(self) -> int:
        return int(self._clock()) + EVERY

    async def _named(self, record: BatchRecord, upstream: str, role: str) -> str:
        """The gateway's id of a file that the batch has made; empty if there is none. All processes give it
        the same id."""
        if not upstream:
            return ""
        digest = hashlib.sha256(f"{record.id} {role}".encode()).digest()
        numbers = iter(digest)
        file = FileRecord(
            file_id(record.created, lambda below: next(numbers) % below), record.account, record.token,
            "kept", record.created, state="ready", upstream=upstream, filename=f"{record.id}_{role}.jsonl",
            media_type="application/jsonl", purpose="batch_output", uploaded_as="batch",
        )  # fmt: skip
        provider, token = self._upstream().provider, self.token(record.token)
        if token is not None and isinstance(provider, KeepsFiles):
            try:
                if info := await provider.files.info(token, upstream):
                    file = replace(file, size=info.size)
            except UpstreamFailure as failure:
                emit("batch_file", logging.WARNING, batch=record.id, cause=failure.cause)
        try:
            await self._store.add_file(file, ROOM)
        except NoRoom:
            emit("batch_file", logging.WARNING, batch=record.id, cause="no_room")
            return ""
        return file.id

    async def _booked_quietly(self, record: BatchRecord, told: UpstreamBatch, patient: bool) -> None:
        """The next look repeats a step that failed."""
        try:
            async with self._places, asyncio.timeout(READ_WITHIN):
                await self._booked(record, told, patient)
        except ReadElsewhere:
            emit("batch_read_elsewhere", batch=record.id)
        except (UpstreamFailure, StoreDown, GatewayError, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, UpstreamFailure | StoreDown | GatewayError) else "timeout"
            emit("batch_unbooked", logging.WARNING, batch=record.id, cause=cause)
        finally:
            if self._booking.get(record.id) is asyncio.current_task():
                del self._booking[record.id]

    async def _booked(self, record: BatchRecord, told: UpstreamBatch, patient: bool) -> None:
        tally, record = await self._tally(record, told, patient)
        row = self._registry.row(tally.model or "batch")
        price = price_of(self._upstream().provider.name, row)
        usd = 0.0 if price is None else price.of(tally.input, tally.cached, tally.output) * PRICE
        saved = 0.0 if price is None else tally.cached * (price.input - price.cached) * PRICE
        usage = bounded(
            Usage(
                tally.input,
                tally.output,
                tally.cached,
                cost=round(usd * 1_000_000),
                saved=max(0, round(saved)),
            )
        )
        now = int(self._clock())
        admission = record.admission()
        if tally.input or tally.output:
            mine = await self._store.settle(admission, row.id, usage, now)
        else:
            mine = await self._store.release(admission, row.id, told.status == "failed", now)
        if mine:
            emit(
                "batch_ended", batch=record.id, key=record.key, account=record.account, model=row.id,
                status=told.status, answers=tally.answers, unread=tally.unread, **tally.counts,
                cost_usd=None if price is None else round(usd, 9),
            )  # fmt: skip
        state = {**record.state, "usage": tally.counts} | ({"model": row.id} if tally.model else {})
        await self._closed(record, state)

    async def _closed(self, record: BatchRecord, state: dict[str, object]) -> BatchRecord:
        text, expires = json.dumps(state, ensure_ascii=False), int(self._clock()) + KEPT
        return await self._changed(record, replace(record, told=text, due=NEVER, expires=expires, read=""))

    async def _tally(
        self, record: BatchRecord, told: UpstreamBatch, patient: bool
    ) -> tuple[Tally, BatchRecord]:
        """From the output file, else from the counts of the batch itself; and the record with its notes.
        Raises UpstreamFailure, StoreDown, ReadElsewhere."""
        tally = Tally.of(record.read) if told.output else Tally()
        stuck = bool(tally.moved) and self._clock() - tally.moved >= UNREAD
        provider, token = self._upstream().provider, self.token(record.token)
        if told.output and not stuck and token is not None and isinstance(provider, KeepsFiles):
            saving = Saving(self._store, record, tally, self._clock, patient)
            try:
                async with provider.files.content(token, told.output, tally.at) as chunks:
                    await of_lines(steady(chunks), tally, saving.save)
                record = saving.record
                if tally.answers:
                    return tally, record
            except UpstreamFailure as failure:
                if failure.cause != "model":  # the platform's 404: the file is gone
                    raise
        counts, model = told.told.get("usage"), told.told.get("model")
        if stuck:
            emit("batch_unread", logging.WARNING, batch=record.id, at=tally.at, answers=tally.answers)
        if not isinstance(counts, dict) or stuck and counts["output_tokens"] < tally.output:
            return replace(tally, model=tally.model or str(model or "")), record
        counted = counts["input_tokens"], counts["cached_tokens"], counts["output_tokens"]
        return Tally(*counted, model=str(model or "")), record

    async def _given_up(self, record: BatchRecord, why: str) -> BatchRecord:
        """A batch that cannot be followed any more. Its lease is released, as an error."""
        now = int(self._clock())
        await self._store.release(record.admission(), "batch", True, now)
        emit("batch_given_up", logging.WARNING, batch=record.id, token=record.token, detail=why)
        fault = {"code": "unknown_batch", "message": why, "param": None, "line": None}
        faults = {"object": "list", "data": [fault]}
        return await self._closed(
            record, {**record.state, "status": "failed", "failed_at": now, "errors": faults}
        )

    async def _ended(self, record: BatchRecord) -> None:
        """The account was deleted: cancel the batch, and forget it once its files are due for deletion.
        Raises UpstreamFailure, StoreDown."""
        provider, token = self._upstream().provider, self.token(record.token)
        if token is None or not isinstance(provider, RunsBatches):
            raise UpstreamFailure("bound", "the batch's token is gone")
        batches, now = provider.batches, int(self._clock())
        if record.upstream:
            told = await batches.get(token, record.upstream)
        else:
            told = await batches.tagged(token, record.id)
        if told is None and now - record.created < LOST or told is not None and not told.ended:
            if told is not None and told.status != "cancelling":
                await batches.cancel(token, told.id)
            await self._changed(record, replace(record, due=self._later()))
            return
        made = () if told is None else ((told.output, record.output), (told.errors, record.errors))
        for upstream, named in made:
            if upstream and not named:  # a named one is a file of the account, which is due already
                file = FileRecord(
                    file_id(now), record.account, record.token, "passing", now, now, "ready", upstream
                )
                await self._store.add_file(file, ROOM)
        await self._store.remove_batch(record)
        emit("batch_forgotten", batch=record.id)

    async def sweep(self, most: int = AT_ONCE, patient: bool = False) -> None:
        """Look at batches that nobody has asked for. A `patient` sweep has time to read to the end: it takes
        over the bookings of this process, which may have been frozen with dead connections, and each
        sweep begins with other batches. Raises StoreDown."""
        now = int(self._clock())
        due = await self._store.due_batches(now, most)
        if patient:
            await self._taken_over()
            first = now // 3_600 % max(1, len(due))
            due = due[first:] + due[:first]
        for record in due:
            try:
                if record.gone:
                    await self._ended(record)
                    continue
                looked = await self.look(record, patient)
            except (UpstreamFailure, GatewayError) as exc:
                emit("batch_unreached", logging.WARNING, batch=record.id, cause=exc.cause)
                if now - record.created >= UNREACHABLE and record.gone:
                    await self._store.remove_batch(record)
                elif now - record.created >= UNREACHABLE:
                    await self._given_up(record, "The upstream account of this batch cannot be reached.")
                else:
                    await self._changed(record, replace(record, due=self._later()))
                continue
            if not looked.booked:
                await self._store.renew([looked.admission()], now + LONGER)

    async def _taken_over(self) -> None:
        running = list(self._booking.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
