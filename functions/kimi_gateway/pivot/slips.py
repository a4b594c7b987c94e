"""Slips of a model in the JSON of a call's arguments, mended while they stream in: a raw control character
inside a string is escaped, a backslash before no escape is doubled, what follows the object's end is left
out. However the text is cut into pieces, the mended pieces join to the same text.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\\x00-\x1f]')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")  # at the end of a piece: an escape that may go on
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class Mender:
    """`feed` gives the mended text of each piece. A text that begins as no object passes as it is."""

    __slots__ = ("_depth", "_foreign", "_held", "_inside", "whole")

    def __init__(self, foreign: bool = False) -> None:
        self._foreign = foreign  # no JSON to mend, such as a free text
        self._depth = 0
        self._inside = False  # a string
        self._held = ""  # an escape whose end has not come
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
        at, copied = 0, 0  # what lies between is right as it is
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
