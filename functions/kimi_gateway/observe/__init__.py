"""Log lines and the facts of a request: `emit` an event, `finished` a request, `redact` a text."""

from .events import (
    Sink,
    asked_by,
    current_account,
    current_request,
    current_trace,
    emit,
    finished,
    log,
    piece,
    sinks,
    trace_headers,
    tracers,
)
from .lines import JsonLines, line_of, to_stream
from .record import RequestRecord
from .redaction import LONGEST_TEXT, Redactor, excerpt, redact

__all__ = [
    "LONGEST_TEXT",
    "JsonLines",
    "Redactor",
    "RequestRecord",
    "Sink",
    "asked_by",
    "current_account",
    "current_request",
    "current_trace",
    "emit",
    "excerpt",
    "finished",
    "line_of",
    "log",
    "piece",
    "redact",
    "sinks",
    "to_stream",
    "trace_headers",
    "tracers",
]
