"""JSON in and out, strict where a request comes in: gateway and upstream must never read it differently."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:60]!r} occurs twice in one object")
    return members


_STRICT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)


def loads_strict(body: bytes) -> Any:
    """One JSON text in UTF-8. Raises ValueError (with the place) on anything else: another encoding or a
    byte order mark, NaN and Infinity, a name twice in an object, half of a surrogate pair, a number or
    nesting too large to hold.
    """
    try:
        value = _STRICT.decode(body.decode("utf-8"))
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return value


loads = json.loads


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8. Half of a surrogate pair, which a stream may split, stays an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
