"""JSON in and out, strict where a request comes in: gateway and upstream must never read it differently."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

DEEPEST = 256  # containers in containers; each reader further on needs stack for them


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:60]!r} occurs twice in one object")
    return members


def _depth(value: Any) -> int:
    depth, level = 0, [value] if isinstance(value, dict | list) else []
    while level:
        depth += 1
        level = [
            member
            for container in level
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, dict | list)
        ]
    return depth


_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
_PLAIN = json.JSONDecoder(parse_constant=_no_constant)


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
    if body.count(b"[") + body.count(b"{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deeply")
    return value


def loads(text: bytes) -> Any:
    """An upstream's JSON. Raises ValueError, NaN and Infinity included, and RecursionError."""
    return _PLAIN.decode(text.decode())


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8. Half of a surrogate pair, which a stream may split, stays an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
