"""Extracts the free text of a custom tool's call from a function's arguments while they stream."""

from __future__ import annotations

import json
import re

_BEGIN = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HEX = "[0-9a-fA-F]"
# Complete units inside a JSON string; the first half of a surrogate pair waits for the next unit.
_UNITS = re.compile(
    r'(?:[^"\\]+'
    r'|\\["\\/bfnrt]'
    rf"|\\u(?![dD][89abAB]){_HEX}{{4}}"
    rf"|\\u[dD][89abAB]{_HEX}{{2}}(?:\\u{_HEX}{{4}}|(?=[^\\]|\\[^u])))*"
)


class FreeText:
    """`feed` returns text that is certain, `rest` the remainder at the end. If the arguments are not an
    object with the one member, they are the text themselves: the model forgot the wrapping."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = self._over = False

    def feed(self, piece: str) -> str:
        if self._over:
            return ""
        self._held += piece
        if not self._inside:
            begin = _BEGIN.match(self._held)
            if begin is None:
                return ""
            self._held, self._inside = self._held[begin.end() :], True
        units = _UNITS.match(self._held)
        end = units.end() if units else 0
        text, self._held = self._held[:end], self._held[end:]
        self._over = self._held.startswith('"')
        return str(json.loads(f'"{text}"', strict=False)) if text else ""

    def rest(self) -> str:
        """The remainder. Text that was cut within an escape stays as it came."""
        held, self._held = self._held, ""
        return "" if self._over else held
