"""Removes secrets from texts: by shape, and configured tokens by value."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Shapes of keys and tokens: ours (sk-kg-…) and the platform's (sk-…), bearer values, JWTs, and the vendor's
# organisation and key ids, which its error texts contain (docs/upstream.md).
_SECRET_SHAPES = re.compile(
    r"sk-[A-Za-z0-9_-]{8,}"
    r"|(?i:bearer)\s++[^\s\"',;]++"
    # From the start of the word, without backtracking: each character is looked at a fixed number of times.
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*?eyJ[A-Za-z0-9_-]{8})"
    r"[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+"
    r"|\borg-[A-Za-z0-9]{6,}"
    r"|<?\bak-[A-Za-z0-9]{6,}>?"
)

LONGEST_TEXT = 16 * 1024  # characters of one text in a line
_MARGIN = 4 * 1024  # characters behind the cut that are searched too, because a secret may cross it

_MARKS = ("sk-", "bearer", "eyj", "org-", "ak-")  # in lower case; each shape has one of them


class Redactor:
    """Replaces secrets by shape, and configured tokens by value."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Secrets to hide from now on. Those under 6 characters are ignored, because they would hide ordinary
        words."""
        fresh = {secret for secret in secrets if len(secret) >= 6} - self._values
        if fresh:
            self._values = self._values | fresh  # a new set, since another thread may go through the old one
            longest_first = sorted(self._values, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def finds(self, text: str) -> bool:
        """Whether there may be something to replace: the mark of a shape, or a token."""
        lower = text.lower()
        return any([mark in lower for mark in _MARKS]) or any([value in text for value in self._values])

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub("[redacted]", text)
        return _SECRET_SHAPES.sub("[redacted]", text)


redact = Redactor()


def excerpt(text: str, longest: int) -> str:
    """The text without secrets, at most `longest` characters. It is cut before it is searched, so the cost is
    bounded. Text at the cut may be a part of a secret and is dropped."""
    found = redact(text[: longest + _MARGIN])
    if len(text) > longest + _MARGIN:
        found = found[: max(0, len(found) - _MARGIN)]
    return found[:longest]
