"""Log lines for a person at a terminal: time, level, event, then `name=value`. They are redacted as the JSON
lines are, and no value can move the cursor."""

from __future__ import annotations

import json
import logging
import os
from typing import Any, TextIO

from kimi_gateway.observe.lines import JsonLines

_COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "31"}
_LEFT_OUT = ("time", "level", "event", "method", "path", "status", "route", "traceback")


class TerminalLines(JsonLines):
    """`colour`: with ANSI colours."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Any] = json.loads(super().format(record))
        level, event = str(members["level"]), _plain(members["event"])
        parts = [
            self._in("2", str(members["time"])[11:19]),
            self._in(_COLOURS.get(level, "0"), f"{level.upper():<7}"),
            self._in("1", event),
        ]
        if "status" in members:
            status = f"{members['status']}"
            colour = "32" if status < "400" else "33" if status < "500" else "31"
            parts += [_plain(members.get(name, "")) for name in ("method", "path")]
            parts.append(self._in(colour, status))
        if members.get("id") == members.get("request_id"):
            members.pop("id", None)
        names = [name for name in members if name not in _LEFT_OUT]
        parts += [f"{self._in('2', name + '=')}{_plain(members[name])}" for name in names]
        text = " ".join(part for part in parts if part)
        lines = str(members.get("traceback", "")).splitlines()
        return "\n".join([text, *(f"  {_plain(line, quoted=False)}" for line in lines)])

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _plain(value: Any, quoted: bool = True) -> str:
    """The value on one line; text with blanks or unprintable characters is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    if value.isprintable() and (not quoted or (value and " " not in value)):
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def formatter(form: str, stream: TextIO) -> logging.Formatter:
    """`form` is json, text, or auto: text on a terminal, else json."""
    isatty = stream.isatty()
    return (
        JsonLines() if form == "json" or (form == "auto" and not isatty) else TerminalLines(coloured(isatty))
    )


def coloured(isatty: bool) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return isatty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
