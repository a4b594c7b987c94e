"""Repairs small defects in the JSON of a call's arguments while they stream: a raw control character inside a
string is escaped, a backslash before an invalid escape is doubled, text behind the object's end is dropped.
The result does not depend on how the text is cut into pieces."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\\x00-\x1f]')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")  # at the end of a piece: an escape that may continue
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class Mender:
    """`feed` returns the repaired text of each piece. Text that does not begin as an object passes
    unchanged."""

    __slots__ = ("_depth", "_foreign", "_held", "_inside", "whole")

    def __init__(self, foreign: bool = False) -> None:
        self._foreign = foreign  # not JSON, such as free text
        self._depth = 0
        self._inside = False  # inside a string
        self._held = ""  # an incomplete escape
        self.whole = False  # the object has ended

    def feed(self, piece: str) -> str:
        if self._foreign:
            return piece
        if self.whole:
            return ""
        if not self._depth and not self._begins(piece):
            return piece
        if not self._held and not (_INSIDE if self._inside else _OUTSIDE).search(piece):
            return piece
        return self._mended(self._held + piece)

    def _begins(self, piece: str) -> bool:
        first = piece.lstrip()[:1]
        self._foreign = bool(first) and first != "{"
        return first == "{"

    def _mended(self, text: str) -> str:
        self._held = ""
        out: list[str] = []
        at, copied = 0, 0  # the text in between is unchanged
        while found := (_INSIDE if self._inside else _OUTSIDE).search(text, at):
            here, mark = found.start(), found[0]
            at = here + 1
            if mark == '"':
                self._inside = not self._inside
            elif not self._inside:
                self._depth += 1 if mark in "{[" else -1
                if self._depth == 0:
                    self.whole = True
                    return "".join((*out, text[copied:at]))
            elif mark != "\\":
                out += text[copied:here], _NAMED.get(mark) or f"\\u{ord(mark):04x}"
                copied = at
            elif escape := _ESCAPE.match(text, here):
                at = escape.end()
            elif (begun := _BEGUN.match(text, here)) and begun.end() == len(text):
                self._held = text[here:]
                return "".join((*out, text[copied:here]))
            else:
                out += text[copied:here], "\\\\"
                copied = at
        return "".join((*out, text[copied:])) if out else text[copied:]
