"""JSON in and out. Requests are read strictly, because the gateway and the upstream must never read them
differently."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import field
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any, NoReturn

from kimi_gateway.dataclass import dataclass

DEEPEST = 256  # nested containers; every later reader needs stack for them


SEPARATORS = (b",", b"[", b"{")
MOST_VALUES = 250_000  # values of a text; each costs far more than its bytes
SPARSE = 64  # bytes for each separator of a kind, at least, in a text that is mostly words


def has_too_many_values(data: bytes) -> bool:
    """Whether a large JSON text has more than about MOST_VALUES values. Counts separators without parsing,
    and removes strings only if they decide."""
    if len(data) <= MOST_VALUES or _separators(data) <= MOST_VALUES:
        return False
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return sum(map(b"".join(bare.split(b'"')[::2]).count, SEPARATORS)) > MOST_VALUES


def _separators(data: bytes) -> int:
    """The number of separators, inside of strings too. `replace` skips from one to the next by the
    processor's search for a byte, and `count` looks at every byte. That is quicker only for few hits; so each
    search ends at a bound, and `translate` then counts all of them in one pass."""
    few, found = len(data) // SPARSE, 0
    for separator in SEPARATORS:
        hits = len(data) - len(data.replace(separator, b"", few + 1))
        if hits > few:
            return len(data) - len(data.translate(None, b"".join(SEPARATORS)))
        found += hits
    return found


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
    depth, level = 0, [value] if isinstance(value, _CONTAINERS) else []
    while level:
        depth += 1
        level = [
            member
            for container in level
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, _CONTAINERS)
        ]
    return depth


_CONTAINERS = (dict, list)


@dataclass(frozen=True, slots=True)
class Source:
    """An object and its original text, so that unchanged members need not be written again. `spans` are the
    positions of the members' values in `text`, and in `raw` if it is ASCII."""

    values: dict[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)
    text: str = field(repr=False)
    spans: dict[str, tuple[int, int]]

    def wording(self, name: str) -> bytes | memoryview:
        start, end = self.spans[name]
        if self.text.isascii():
            return memoryview(self.raw)[start:end]
        if end - start < len(self.text) // 2:
            return self.text[start:end].encode()
        # For a large part it is cheaper to encode the text around it.
        before, behind = len(self.text[:start].encode()), len(self.text[end:].encode())
        return memoryview(self.raw)[before : len(self.raw) - behind]


_SURROGATE = re.compile(rb"\\u[dD]")
_BLANK = " \t\n\r"  # has the empty text too, at the end
_BLANKS = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')  # a name without escapes
_EMPTY = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*\}[ \t\n\r]*")
_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)
_PLAIN = json.JSONDecoder(parse_constant=_no_constant)
_value: Callable[[str, int], tuple[Any, int]] = _PLAIN.scan_once  # type: ignore[attr-defined]


def loads_source(body: bytes) -> tuple[Any, Source | None]:
    """Parse one JSON text in UTF-8; also return its source if it is an object. Raises ValueError (with the
    place) for another encoding or a byte order mark, NaN and Infinity, a duplicate name in an object, half of
    a surrogate pair, and a number or nesting that is too large."""
    try:
        text = body.decode("utf-8")
        source = _scan(body, text)
        value = _STRICT.decode(text) if source is None else source.values
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    if len(body) > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deeply")
    return value, source


def _scan(raw: bytes, text: str) -> Source | None:
    """The members of an object one by one. None if the text is not plainly an object; the decoder then judges
    it."""
    place = _blanks(text, 0)
    if not text.startswith("{", place):
        return None
    if _EMPTY.fullmatch(text):
        return Source({}, raw, text, {})
    members: list[tuple[str, Any]] = []
    spans: dict[str, tuple[int, int]] = {}
    while True:
        if plain := _NAME.match(text, place + 1):
            name, start = plain[1], plain.end()
        else:
            place = _blanks(text, place + 1)
            if not text.startswith('"', place):
                return None
            name, place = _STRICT.raw_decode(text, place)
            place = _blanks(text, place)
            if not text.startswith(":", place):
                return None
            start = _blanks(text, place + 1)
        value, end = _STRICT.raw_decode(text, start)
        members.append((name, value))
        spans[name] = (start, end)
        place = end
        if text[place : place + 1] in _BLANK:
            place = _blanks(text, place)
        if text.startswith("}", place) and _blanks(text, place + 1) == len(text):
            return Source(_unique(members), raw, text, spans)
        if not text.startswith(",", place):
            return None


def _blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place


def rewrite(value: dict[str, Any], source: Source) -> bytes:
    """Serialise the object; copy unchanged containers verbatim from `source`."""
    parts: list[bytes | memoryview] = []
    fresh: dict[str, Any] = {}
    for name, member in value.items():
        if isinstance(member, _CONTAINERS) and member is source.values.get(name):
            _write(fresh, parts)
            parts += dumps(name), b":", source.wording(name), b","
        else:
            fresh[name] = member
    _write(fresh, parts)
    return b"".join((b"{", *parts[:-1], b"}"))


def _write(fresh: dict[str, Any], parts: list[bytes | memoryview]) -> None:
    """Serialise and remove the members of `fresh`."""
    if fresh:
        parts += dumps(fresh)[1:-1], b","
        fresh.clear()


def loads(text: bytes) -> Any:
    """Parse an upstream's JSON. Raises ValueError, also for NaN and Infinity, and RecursionError."""
    decoded = text.decode()
    try:
        value, end = _value(decoded, 0)
    except (ValueError, StopIteration):
        end = -1
    return value if end == len(decoded) else _PLAIN.decode(decoded)  # surrounding blanks, or an error


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8. Half of a surrogate pair, which a stream may split, stays an escape."""
    try:
        return "".join(_COMPACT(value, 0)).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def strings(texts: list[str], between: bytes) -> bytes:
    """As `dumps` writes each of the texts, with `between` between them."""
    try:
        return "".join(_LINES(texts, 0)).encode()[1:-1].replace(b"\n", between)
    except UnicodeEncodeError:
        return between.join(map(dumps, texts))


def writer(item: str, member: str) -> Callable[[Any, int], Iterable[str]]:
    """Writes JSON in parts, with these separators. `json` would make an encoder for each text. No value holds
    itself, so nothing looks for that."""
    if c_make_encoder is None:  # an interpreter without it
        encoder = json.JSONEncoder(ensure_ascii=False, separators=(item, member))
        return lambda value, depth: encoder.iterencode(value)
    made: Callable[[Any, int], Iterable[str]] = c_make_encoder(
        None, json.JSONEncoder().default, encode_basestring, None, member, item, False, False, True
    )
    return made


_LINES = writer("\n", ":")  # no string holds a line end as it is
_COMPACT = writer(",", ":")
