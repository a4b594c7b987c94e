"""Logging: one JSON object a line, redacted at the sink, so that no caller can leak by forgetting to."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TextIO

log = logging.getLogger("kimi_gateway")

# Keys and tokens by shape: ours (sk-kg-…) and the platform's (sk-…), bearer values, JWTs, and the vendor's
# organisation and key ids, which its error texts carry (docs/upstream.md).
_SECRET_SHAPES = re.compile(
    r"sk-[A-Za-z0-9_-]{8,}"
    r"|(?i:bearer)\s++[^\s\"',;]++"
    # From the start of its word, and never back: each character is looked at a fixed number of times.
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*?eyJ[A-Za-z0-9_-]{8})"
    r"[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+"
    r"|\borg-[A-Za-z0-9]{6,}"
    r"|<?\bak-[A-Za-z0-9]{6,}>?"
)

LONGEST_TEXT = 16 * 1024  # characters of one text in a line
_MARGIN = 4 * 1024  # characters behind the cut that are searched as well: a secret may stand across it

_MARKS = ("sk-", "bearer", "eyj", "org-", "ak-")  # in lower case; each shape has one of them


class Redactor:
    """Replaces secrets by shape, and the configured tokens by value whatever their shape."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Secrets to hide from now on. Those of under 6 characters would blacken ordinary words."""
        fresh = {secret for secret in secrets if len(secret) >= 6} - self._values
        if fresh:
            self._values |= fresh
            longest_first = sorted(self._values, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def finds(self, text: str) -> bool:
        """Whether there may be anything to replace: the mark of a shape, or a token."""
        lower = text.lower()
        return any([mark in lower for mark in _MARKS]) or any([value in text for value in self._values])

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub("[redacted]", text)
        return _SECRET_SHAPES.sub("[redacted]", text)


redact = Redactor()


def _plain(value: Any, texts: list[str]) -> Any:
    """What JSON can hold, the rest in words. Its texts, but for names of members, are added to `texts`."""
    if type(value) in _HELD:
        return value
    if isinstance(value, dict):
        return {name: _plain(member, texts) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member, texts) for member in value]
    texts.append(_cut(str(value)))
    return texts[-1]


def excerpt(text: str, longest: int) -> str:
    """Without secrets, and `longest` characters at most. It is cut before it is searched, so that no text
    costs more than its bound. What stands at the cut may be the first part of a secret, and goes with it."""
    found = redact(text[: longest + _MARGIN])
    if len(text) > longest + _MARGIN:
        found = found[: max(0, len(found) - _MARGIN)]
    return found[:longest]


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
    """One line of JSON without secrets: redacted before it is quoted, for afterwards a secret may be spelt
    otherwise, and the line be broken."""
    texts: list[str] = []
    line = dict(members)
    for name, value in members.items():
        if type(value) is str:
            if len(value) > LONGEST_TEXT:
                line[name] = value = _cut(value)
            texts.append(value)
        elif type(value) not in _HELD:
            line[name] = _plain(value, texts)
    if redact.finds("\n".join(texts)):  # one look at all of them, which in nearly every line finds nothing
        line = _clean(line)
    text = _LINE.encode(line)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair becomes its escape


_LINE = json.JSONEncoder(ensure_ascii=False)
_HELD = frozenset((int, float, bool, type(None)))


class JsonLines(logging.Formatter):
    """`{"time", "level", "event", …fields}`; a record's fields ride in `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return line_of(line)


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def to_stream(level: str, stream: TextIO | None = None) -> None:
    """Send this program's log lines, and its server's and client's, to one redacting sink."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())


def emit(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line. Fields that are None are left out."""
    if log.isEnabledFor(level):
        kept = {name: value for name, value in fields.items() if value is not None}
        # Not by `log.log`, which looks through the stack for the caller's line.
        log.handle(log.makeRecord(log.name, level, "", 0, event, (), None, extra={"fields": kept}))
