"""Unique tool-call ids. The vendor counts its ids from zero in each turn (`run:0`), but clients expect unique
ones: Claude Code drops the second result under one id from its history (2026-11).

A client gets the vendor's id with a mark behind it; the mark is removed when the id comes back. Nothing is
stored: the mark ends in a check character over the whole id, so other ids pass unchanged.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

Randomness = Callable[[int], bytes]  # returns this number of unpredictable bytes

_BEGIN = "_kg"
_RANDOM = 6  # characters; 62 ** 6 values for the calls of one conversation that share a vendor's id
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # legal in every client's ids
_MARKED = re.compile(rf"(?s)(.+{_BEGIN}[0-9A-Za-z]{{{_RANDOM}}})([0-9A-Za-z])")
MARK = len(_BEGIN) + _RANDOM + 1  # characters; OpenAI's clients accept ids of 64, some of 40


def marked(id: str, randomness: Randomness) -> str:
    """The client's form of a vendor's id; different at each call."""
    number = int.from_bytes(randomness(8), "big")
    digits = []
    for _ in range(_RANDOM):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    whole = f"{id}{_BEGIN}{''.join(digits)}"
    return whole + _check(whole)


def vendors(id: str) -> str:
    """The vendor's id for a client's; an id without a valid mark is returned unchanged."""
    found = _MARKED.fullmatch(id) if _BEGIN in id[-MARK:] else None
    if found is None or found[2] != _check(found[1]):
        return id
    return found[1][: 1 - MARK]


def _check(whole: str) -> str:
    return _ALPHABET[zlib.crc32(whole.encode("utf-8", "surrogatepass")) % len(_ALPHABET)]
