"""Tool-call ids on both sides. Kimi's may contain `:` and `.`, Anthropic's clients accept `[a-zA-Z0-9_-]`
only, and the vendor needs its own back byte for byte, so the translation is one to one."""

from __future__ import annotations

import re

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_PREFIX = "kimi_"
_ESCAPE = re.compile(r"-([0-9a-f]{2})")
_ESCAPED = re.compile(rb"[^a-zA-Z0-9_]")


def shown(id: str) -> str:
    """The client's form: legal ids unchanged; otherwise each illegal byte becomes `-` and two hex digits."""
    if _LEGAL.fullmatch(id) and upstream(id) == id:
        return id
    return _escaped(id)


def upstream(id: str) -> str:
    """The vendor's id for a client's; ids that `shown` did not make are returned unchanged."""
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
