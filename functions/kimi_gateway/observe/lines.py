"""Log lines: one JSON object each, redacted where they are written, so that no caller can leak by mistake."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

from kimi_gateway.observe.events import current_request, current_trace, log
from kimi_gateway.observe.redaction import LONGEST_TEXT, excerpt, redact


def _plain(value: Any, texts: list[str]) -> Any:
    """The value as JSON; other types become text. Texts, except member names, are added to `texts`."""
    if type(value) in _HELD:
        return value
    if isinstance(value, dict):
        return {name: _plain(member, texts) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member, texts) for member in value]
    texts.append(_cut(str(value)))
    return texts[-1]


def _cut(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{excerpt(text, LONGEST_TEXT)} … ({len(text)} characters in all)"


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _clean(member) for name, member in value.items()}
    if isinstance(value, list):
        return list(map(_clean, value))
    return redact(value) if isinstance(value, str) else value


def line_of(members: Mapping[str, Any]) -> str:
    """One line of JSON without secrets. It is redacted before it is quoted, because quoting may change the
    spelling of a secret."""
    texts: list[str] = []
    line = dict(members)
    for name, value in members.items():
        if type(value) is str:
            if len(value) > LONGEST_TEXT:
                line[name] = value = _cut(value)
            texts.append(value)
        elif type(value) not in _HELD:
            line[name] = _plain(value, texts)
    if redact.finds("\n".join(texts)):  # one search over all texts, which rarely finds anything
        line = _clean(line)
    text = _LINE.encode(line)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair becomes its escape


_LINE = json.JSONEncoder(ensure_ascii=False)
_HELD = frozenset((int, float, bool, type(None)))


class JsonLines(logging.Formatter):
    """`{"time", "level", "event", …fields, "request_id"}`; a record's fields are in `extra={"fields": {…}}`.
    `request_id` is in each line that is written while a request runs."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        line |= of_request()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return line_of(line)


def of_request() -> dict[str, str]:
    """The members with the id of the current request, and of its trace if something traces."""
    id, trace = current_request.get(), current_trace.get()
    if trace is not None:
        return {"request_id": id, "trace_id": trace.id}
    return {"request_id": id} if id else {}


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def to_stream(level: str, stream: TextIO | None = None, formatter: logging.Formatter | None = None) -> None:
    """Send the log lines of this program, its server and its client to one redacting sink."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter or JsonLines())
    # No line names a thread or a process, and looking them up costs as much as the rest of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())
