"""Words of fields that only tune an answer, which never cause a refusal: an unknown word becomes the nearest
known one, and the caller names its field in `X-Param-Ignored`. docs/contract.md, Request."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
SUMMARIES = ("auto", "concise", "detailed")
VERBOSITIES = ("low", "medium", "high")
TRUNCATIONS = ("disabled", "auto")
DISPLAYS = ("summarized", "omitted")
# Synonyms of known words.
_EFFORTS_LIKE = {"off": "none", "min": "minimal", "lowest": "minimal", "highest": "max", "maximum": "max"}
_OFF = ("off", "none", "false", "no", "never", "disable")
_AGE = re.compile(r"(\d{1,9}) ?(s|m|h|d)[a-z]*")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONG = 1_800  # seconds; from here on an hour is nearer than five minutes

Tuned = tuple[str, bool]  # the resulting word, and whether it is the client's own


def effort(word: str) -> Tuned:
    """The nearest effort; an unknown word becomes the middle one. Three are sent upstream: low, high and
    max."""
    plain = _plain(word)
    return (plain, True) if plain in EFFORTS else (_EFFORTS_LIKE.get(plain, "high"), False)


def thinking(word: str) -> Tuned:
    plain = _plain(word)
    if plain in ("enabled", "disabled", "adaptive"):
        return plain, True
    if plain == "between_tools":  # Anthropic's; Kimi knows no other way to think
        return "adaptive", True
    return "disabled" if plain in _OFF else "adaptive", False


def lifetime(word: str) -> Tuned:
    """The lifetime of the vendor's prefix cache: five minutes or an hour."""
    plain = _plain(word)
    if plain in ("5m", "1h"):
        return plain, True
    age = _AGE.fullmatch(plain)
    return "1h" if age and int(age[1]) * _SECONDS[age[2]] >= _LONG else "5m", False


def one_of(known: Collection[str], otherwise: str) -> Callable[[str], Tuned]:
    def tuned(word: str) -> Tuned:
        plain = _plain(word)
        return (plain, True) if plain in known else (otherwise, False)

    return tuned


def apply(body: dict[str, Any], words: Mapping[str, Callable[[str], Tuned]], ignored: list[str]) -> None:
    """Map the members of `body` that `words` covers, strings only; `ignored` collects fields with unknown
    words. A dotted name is a member of a member, which is copied before it changes."""
    for name, nearest in words.items():
        outer, _, inner = name.partition(".")
        value = body.get(outer)
        holder = body if not inner else dict(value) if isinstance(value, dict) else {}
        word = holder.get(inner or outer)
        if not isinstance(word, str):
            continue
        tuned, known = nearest(word)
        if not known:
            ignored.append(name)
        if tuned != word:
            holder[inner or outer] = tuned
            if inner:
                body[outer] = holder


def _plain(word: str) -> str:
    return word.strip().lower()
