"""Events for the log. Every line that is written while a request runs names the request."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from kimi_gateway.observe.record import RequestRecord

if TYPE_CHECKING:
    from kimi_gateway.observe.otlp.context import Trace

log = logging.getLogger("kimi_gateway")

# The id of the request for which this task, or the task that started it, works; empty outside of requests.
current_request: ContextVar[str] = ContextVar("current_request", default="")
# The account that asks, once its key is known.
current_account: ContextVar[str] = ContextVar("current_account", default="")
# Its trace, if something traces.
current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)
# Begin the trace of a request, from its headers; empty if nothing traces.
tracers: list[Callable[[Any, RequestRecord], None]] = []


class Sink(Protocol):
    """Counts events and requests, whatever the log level is."""

    def event(self, event: str, warns: bool, fields: Mapping[str, Any]) -> None: ...

    def request(self, record: RequestRecord) -> None: ...

    def piece(self, seconds: float) -> None:
        """A further piece of an answer came so long after the one before."""

    def step(self, name: str, seconds: float) -> None:
        """A step of the store took so long."""


sinks: list[Sink] = []  # of this process
# The latest requests of this process with the unix second of their end, for the operator. The home server
# replaces the list by one that packs older requests.
recent: deque[tuple[float, RequestRecord]] = deque(maxlen=1_000)


def emit(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line. Fields that are None are dropped."""
    for sink in sinks:
        sink.event(event, level >= logging.WARNING, fields)
    if log.isEnabledFor(level):
        kept = {name: value for name, value in fields.items() if value is not None}
        _write(event, level, {"fields": kept})


def trace_headers() -> dict[str, str]:
    """Headers that pass the trace of this request on to an upstream."""
    trace = current_trace.get()
    return {} if trace is None else trace.outgoing()


def asked_by(record: RequestRecord, key: str, account: str) -> None:
    """Tell who sends the request that this task works for."""
    record.key, record.account = key, account
    current_account.set(account)


def piece(last: float) -> float:
    """Tell the sinks of a piece of an answer; `last` is the time of the one before, 0 if there was none.
    Returns its own time, of time.monotonic()."""
    now = time.monotonic()
    if last:
        for sink in sinks:
            sink.piece(now - last)
    return now


def finished(record: RequestRecord) -> None:
    """Write the line of a request. Metrics read the record itself from `record` of the log record."""
    for sink in sinks:
        sink.request(record)
    recent.append((time.time(), record))
    level = logging.ERROR if record.status == 500 else logging.INFO
    if log.isEnabledFor(level):
        _write("request", level, {"fields": record.fields(), "record": record})


def _write(event: str, level: int, extra: dict[str, Any]) -> None:
    # Not `log.log`, which would search the stack for the caller.
    log.handle(log.makeRecord(log.name, level, "", 0, event, (), None, extra=extra))
