"""Log lines and the facts of a request: `emit` an event, `finished` a request, `redact` a text."""

from .events import current_request, emit, finished, log, recent
from .lines import JsonLines, line_of, to_stream
from .record import RequestRecord
from .redaction import LONGEST_TEXT, Redactor, excerpt, redact

__all__ = [
    "LONGEST_TEXT",
    "JsonLines",
    "Redactor",
    "RequestRecord",
    "current_request",
    "emit",
    "excerpt",
    "finished",
    "line_of",
    "log",
    "recent",
    "redact",
    "to_stream",
]
