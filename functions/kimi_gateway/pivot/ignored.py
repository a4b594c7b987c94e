"""The header that names ignored parts of a request."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

HEADER = "x-param-ignored"
MOST_NAMES = 32
MOST_BYTES = 2_048
LONGEST_NAME = 160  # characters of one name, before they are escaped
AND_MORE = "..."  # in place of the last, if there are too many
_VISIBLE = "!\"#$&'()*+-./:;<=>?@[\\]^_`{|}~"  # without the separator "," and the escape character "%"


def named(*groups: Iterable[str]) -> tuple[str, ...]:
    """The content of the header and the log line: each name once, in visible ASCII (otherwise
    percent-encoded), at most 32 names and 2 KiB including separators."""
    names = dict.fromkeys(_visible(name) for group in groups for name in group)
    kept: list[str] = []
    room = MOST_BYTES - len(AND_MORE)
    for name in names:
        room -= len(name) + 2
        if room < 0 or (len(kept) == MOST_NAMES - 1 and len(names) > MOST_NAMES):
            return (*kept, AND_MORE)
        kept.append(name)
    return tuple(kept)


def _visible(name: str) -> str:
    cut = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}{AND_MORE}"
    return quote(cut, safe=_VISIBLE, errors="surrogatepass")
