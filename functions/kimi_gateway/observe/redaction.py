"""Secrets out of texts: by their shape, and the configured tokens by value."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def excerpt(text: str, longest: int) -> str:
    """Without secrets, and `longest` characters at most. It is cut before it is searched, so that no text
    costs more than its bound. What stands at the cut may be the first part of a secret, and goes with it."""
    found = redact(text[: longest + _MARGIN])
    if len(text) > longest + _MARGIN:
        found = found[: max(0, len(found) - _MARGIN)]
    return found[:longest]
