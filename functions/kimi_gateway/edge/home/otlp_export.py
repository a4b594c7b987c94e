"""The export of spans and metrics by OTLP/HTTP with JSON. A request only puts its record into a queue.

Spans leave in batches, metrics at an interval. A receiver that is down, slow or full costs memory up to the
queue's bound; what comes after it is dropped and counted.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from kimi_gateway import __version__
from kimi_gateway.edge.home.posting import FLUSH, Failed, Sleep, post
from kimi_gateway.http import Headers
from kimi_gateway.net.http import Client
from kimi_gateway.observe import RequestRecord, current_trace, emit, redact
from kimi_gateway.observe.metrics import Metrics, Snapshot
from kimi_gateway.observe.otlp import context, encode, names
from kimi_gateway.observe.otlp.options import Options, Target


class Exporter:
    """A sink of `observe` and the source of its traces, from `start` to `stop`."""

    def __init__(
        self,
        options: Options,
        client: Client,
        metrics: Metrics,
        own: Callable[[], Snapshot],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._options = options
        self._client = client
        self._metrics = metrics
        self._own = own
        self._sleep = sleep
        self._queue = deque[encode.Ended]()
        self._full = asyncio.Event()
        self._begun = time.time_ns()
        self._resource = {names.VERSION: __version__, names.INSTANCE: f"{random.getrandbits(128):032x}"}
        self._resource |= options.resource
        self._beats: list[asyncio.Task[None]] = []
        self._down = set[str]()  # signals whose last export failed

    @property
    def traces(self) -> bool:
        return self._options.traces is not None

    def start(self) -> None:
        for warning in self._options.warnings:
            emit("otlp_setting", logging.WARNING, detail=warning)
        for target in (self._options.traces, self._options.metrics):
            redact.learn(() if target is None else target.headers.values())
        if self._options.traces is not None:
            self._beats.append(asyncio.create_task(self._beat(self._next_batch)))
        if self._options.metrics is not None:
            self._beats.append(asyncio.create_task(self._beat(self._next_metrics)))

    async def stop(self) -> None:
        """Send the rest within FLUSH seconds."""
        for task in self._beats:
            task.cancel()
        await asyncio.gather(*self._beats, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await asyncio.gather(self._rest(), self._send_metrics())
        if left := len(self._queue):
            self._count("traces", "dropped", left)
            emit("otlp_dropped", logging.WARNING, signal="traces", count=left)
        await self._client.close()

    def trace(self, headers: Headers, record: RequestRecord) -> None:
        """Begin the trace of a request; its task and their tasks belong to it."""
        parents, states = headers.all("traceparent"), headers.all("tracestate")
        record.trace = context.begin(self._options, parents, states)
        current_trace.set(record.trace)

    def request(self, record: RequestRecord) -> None:
        trace = record.trace
        if not isinstance(trace, context.Trace) or not trace.sampled or self._options.traces is None:
            return
        if len(self._queue) >= self._options.queue:
            self._count("traces", "dropped", 1)
            return
        self._queue.append((trace, record, time.time_ns()))
        if len(self._queue) >= self._options.batch:
            self._full.set()

    def event(self, event: str, warns: bool, fields: Mapping[str, Any]) -> None:
        """Only requests have spans."""

    def piece(self, seconds: float) -> None:
        """Only requests have spans."""

    def step(self, name: str, seconds: float) -> None:
        """Only requests have spans."""

    async def _beat(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await step()

    async def _next_batch(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.delay):
                await self._full.wait()
        self._full.clear()
        while len(self._queue) >= self._options.batch:
            await self._send_batch()
        await self._send_batch()

    async def _next_metrics(self) -> None:
        await self._sleep(self._options.interval)
        await self._send_metrics()

    async def _rest(self) -> None:
        while self._queue:
            await self._send_batch()

    async def _send_batch(self) -> None:
        target, batch = self._options.traces, list[encode.Ended]()
        while self._queue and len(batch) < self._options.batch:
            batch.append(self._queue.popleft())
        if target is not None and batch:
            spans = partial(encode.spans, self._resource, __version__, batch)
            try:
                await self._send("traces", target, spans, len(batch))
            except asyncio.CancelledError:  # the gateway stops, or the time for the rest is over
                self._queue.extendleft(reversed(batch))
                raise

    async def _send_metrics(self) -> None:
        target = self._options.metrics
        if target is not None:
            of = (self._resource, __version__, self._own(), self._begun, time.time_ns())
            await self._send("metrics", target, partial(encode.metrics, *of), 1)

    async def _send(self, signal: str, target: Target, made: Callable[[], Any], count: int) -> None:
        """Export once, with all tries. What fails is counted and dropped."""
        result = "failed"
        try:
            body = await asyncio.to_thread(_body, made, target.gzip)
            headers = {**target.headers, **({"content-encoding": "gzip"} if target.gzip else {})}
            of = (self._client, target.url, body, target.timeout, headers, self._sleep)
            rejected = _rejected(await post(*of))
            self._count(signal, "failed", min(rejected, count))
            result, count = "sent", max(count - rejected, 0)
            if signal in self._down:
                self._down.discard(signal)
                emit("otlp_sent", signal=signal)
        except Failed as exc:
            if signal not in self._down:  # once, until it works again
                self._down.add(signal)
                emit("otlp_failed", logging.WARNING, signal=signal, detail=str(exc))
        self._count(signal, result, count)

    def _count(self, signal: str, result: str, count: int) -> None:
        if count:
            self._metrics.add("otlp_items_total", (signal, result), count)


def _body(made: Callable[[], Any], packed: bool) -> bytes:
    body = json.dumps(made(), separators=(",", ":")).encode()
    return gzip.compress(body, 6) if packed else body


def _rejected(answer: bytes) -> int:
    """Items that a receiver rejected although it answered with success."""
    try:
        partial = json.loads(answer)["partialSuccess"]
        return max(int(partial.get("rejectedSpans", 0)), int(partial.get("rejectedDataPoints", 0)) and 1)
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0
