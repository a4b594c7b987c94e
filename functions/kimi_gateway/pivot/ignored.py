"""The header that names what of a request goes no further."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

HEADER = "x-param-ignored"
MOST_NAMES = 32
MOST_BYTES = 2_048
LONGEST_NAME = 160  # characters of one, before they are escaped
AND_MORE = "..."  # in the place of the last, where there are too many
_VISIBLE = "!\"#$&'()*+-./:;<=>?@[\\]^_`{|}~"  # but for what separates and escapes: "," and "%"


def named(*groups: Iterable[str]) -> tuple[str, ...]:
    """What the header and the log line hold: each name once, in visible ASCII (percent-encoded where the
    client's text is not), 32 at most and 2 KiB with what is between them."""
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
