"""Tool-call ids on both sides. Kimi's may hold `:` and `.`, Anthropic's clients take `[a-zA-Z0-9_-]` only,
and the vendor wants its own back byte for byte: so the translation is one to one.
"""

from __future__ import annotations

import re

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_PREFIX = "kimi_"
_ESCAPE = re.compile(r"-([0-9a-f]{2})")
_ESCAPED = re.compile(rb"[^a-zA-Z0-9_]")


def shown(id: str) -> str:
    """The client's form: legal ids as they are, others with each further byte as `-` and two digits."""
    if _LEGAL.fullmatch(id) and upstream(id) == id:
        return id
    return _escaped(id)


def upstream(id: str) -> str:
    """The vendor's id behind a client's; an id that `shown` did not make is nobody's but the client's."""
    if not id.startswith(_PREFIX):
        return id
    try:
        written = _ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), id.removeprefix(_PREFIX))
        meant = written.encode("latin-1").decode("utf-8", "surrogatepass")
    except ValueError:
        return id
    return meant if len(meant) < len(id) and shown(meant) == id else id


def _escaped(id: str) -> str:
    raw = id.encode("utf-8", "surrogatepass")
    return _PREFIX + _ESCAPED.sub(lambda found: b"-%02x" % found.group()[0], raw).decode()
