"""Translates the schemas of tools and answers to the vendor's dialect. A schema that conforms is returned as
the same object."""

from __future__ import annotations

import hashlib
import json
import marshal
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeGuard

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.fields import fail
from kimi_gateway.providers.moonshot import argument_names
from kimi_gateway.providers.moonshot.schema.cleaner import MOST_STEPS, Cleaner
from kimi_gateway.providers.moonshot.schema.fit import fitted
from kimi_gateway.providers.moonshot.schema.mfjs import BESIDE, RESERVED
from kimi_gateway.providers.moonshot.schema.places import bytes_of
from kimi_gateway.providers.provider import Costly

REMEMBERED = 256  # schemas; those of a client's tools come with each of its requests
QUICK_STEPS = 500  # for a request before admission, all its schemas together
QUICK_BYTES = 2_000  # of one schema that is cleaned before admission
LONGEST_KEY = 4_096  # bytes; larger schemas are keyed by a digest
LARGE_BYTES = 16_000  # above this size the bytes of a schema count as steps too
BYTES_A_STEP = 32
LARGEST_ANSWER = 192_000  # bytes
TOLD_PARTS, TOLD_LEVELS = 8, 4  # of a schema that is described in words
KEPT_BYTES = 8_000  # of the properties of a schema that takes too many steps as a whole
LONGEST_TOLD = 300  # characters about parts that cannot be translated
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`schema` is None if nothing changed. `loosened`: a part could not be translated and became
    unconstrained. `renamed`: properties have other names upstream (argument_names.py). `steps`: the work that
    it took."""

    schema: Schema | None
    loosened: bool = False
    renamed: bool = False
    steps: int = 0


_allowed: ContextVar[list[int] | None] = ContextVar("allowed", default=None)  # steps


class quickly:
    """Within this block schemas that are not cached may take only a few steps. Raises Costly."""

    def __enter__(self) -> None:
        self._token = _allowed.set([QUICK_STEPS])

    def __exit__(self, *_: object) -> None:
        _allowed.reset(self._token)


_memory: OrderedDict[tuple[bytes, bytes], Cleaned] = OrderedDict()


def clean(schema: Schema, where: str) -> Schema:
    """The schema of an answer in the vendor's keywords, with inexpressible parts in words. The result must
    not be changed. Raises InvalidRequest with the place, below `where`, if it is not a schema, has external
    references, cannot be satisfied, or exceeds the vendor's limits."""
    try:
        dumped = _dumped(schema)
        if len(dumped) > LARGEST_ANSWER:
            fail("", f"is {len(dumped):,} bytes long, which is beyond the platform's limits: 15,000 bytes")
        cleaned = _remembered(b"a", dumped, lambda: _answer(schema))
    except (RecursionError, ValueError):
        fail(where, "has too deep a chain of references")
    except InvalidRequest as exc:
        param = f"{where}{exc.param}"
        raise InvalidRequest(f"{param}{exc.message.removeprefix(str(exc.param))}", param=param) from exc
    return schema if cleaned.schema is None else cleaned.schema


def clean_tool(schema: Any, left: int) -> Cleaned:
    """The parameters of a tool, whatever they are: inexpressible parts become unconstrained and are
    described. `left`: steps that the request may still take; a schema that needs more becomes
    unconstrained."""
    if left <= 0:
        return _open(schema)
    try:
        dumped = _dumped(schema)
        size = len(dumped) // BYTES_A_STEP if len(dumped) > LARGE_BYTES else 0
        if size >= left:
            return _open(schema)
        cleaned = _remembered(b"t", dumped, lambda: _tool(schema, left - size))
    except (RecursionError, ValueError):  # before anything was done
        return _open(schema)
    except _Exhausted:
        return Cleaned(_open(schema).schema, loosened=True, steps=left)
    if cleaned.steps + size > left:
        return Cleaned(_open(schema).schema, loosened=True, steps=left)
    return replace(cleaned, steps=cleaned.steps + size) if size else cleaned


class _Exhausted(Exception):
    """This request has no steps left for it; another one may have."""


def _dumped(schema: Any) -> bytes:
    """The fastest bytes that are the same for the same values."""
    return marshal.dumps(schema, 2)


def _remembered(kind: bytes, dumped: bytes, make: Callable[[], Cleaned]) -> Cleaned:
    key = (kind, dumped if len(dumped) <= LONGEST_KEY else hashlib.blake2b(dumped).digest())
    cleaned: Cleaned | None = _memory.get(key)
    if cleaned is None:
        allowed = _allowed.get()
        if allowed is not None and (allowed[0] <= 0 or len(dumped) > QUICK_BYTES):
            raise Costly
        cleaned = _memory[key] = make()
        if allowed is not None:
            allowed[0] -= cleaned.steps
        if len(_memory) > REMEMBERED:
            _memory.popitem(last=False)
    else:
        with suppress(KeyError):  # another thread may have dropped it
            _memory.move_to_end(key)
    return cleaned


def _answer(schema: Schema) -> Cleaned:
    cleaner = Cleaner(schema)
    cleaned = cleaner.cleaned()
    if cleaner.reserved:
        fail(
            "",
            f"has a property with a name that the model's platform reserves ({', '.join(sorted(RESERVED))})",
        )
    cleaned, opened, more = fitted(cleaned, bytes_of(schema))
    if opened:
        fail(
            "", "is beyond the platform's limits: 15,000 bytes, 10 levels, 1,000 properties, 500 enum values"
        )
    return Cleaned(None if cleaned == schema else cleaned, steps=cleaner.steps + more)


def _tool(schema: Any, left: int) -> Cleaned:
    steps = 0
    for attempt in _attempts(schema):
        again = attempt is not schema
        most = min(MOST_STEPS // 2 if again else MOST_STEPS, left - steps)
        cleaner = Cleaner(attempt, lenient=True, loose=again, most=most)
        try:
            cleaned = cleaner.cleaned()
            if cleaner.reserved:
                cleaned = argument_names.escaped_properties(cleaned)
            cleaned, opened, more = fitted(cleaned, bytes_of(schema))
        except (InvalidRequest, RecursionError):
            steps += cleaner.steps
            if steps >= left:
                raise _Exhausted from None
            continue
        same = cleaned == schema
        loosened = opened or cleaner.loosened or again
        return Cleaned(None if same else cleaned, loosened, cleaner.reserved, steps + cleaner.steps + more)
    return Cleaned(_open(schema).schema, loosened=True, steps=steps)


def _attempts(schema: Any) -> Iterator[Schema]:
    """The schema as a whole; without its largest properties; with properties of one plain type only."""
    if not isinstance(schema, dict):
        return
    yield schema
    yield _trimmed(schema, _small(schema)) if len(marshal.dumps(schema, 2)) > KEPT_BYTES else dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        plain = {name for name in _small(schema) if _is_plain(properties[name])}
        root = {name: schema[name] for name in ("properties", "required", "description") if name in schema}
        yield {"type": "object", **_trimmed(root, plain)}


def _is_plain(node: Any) -> bool:
    return isinstance(node, dict) and node.keys() <= {"type", "description", "enum", "title", "default"}


def _small(schema: Schema) -> set[str]:
    """The smallest properties that fit."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return set()
    sizes = sorted(
        (len(marshal.dumps(part, 2)), at, name) for at, (name, part) in enumerate(properties.items())
    )
    kept, room = set(), KEPT_BYTES
    for size, _, name in sizes:
        room -= size
        if room >= 0:
            kept.add(name)
    return kept


def _trimmed(schema: Schema, kept: set[str]) -> Schema:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    names = list(properties)[: KEPT_BYTES // 40]  # the rest is not described
    trimmed = {name: properties[name] if name in kept else _stub(properties[name]) for name in names}
    required = schema.get("required")
    named = [name for name in required if name in trimmed] if _are_names(required) else []
    return {**schema, "properties": trimmed, "required": named}


def _are_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _stub(part: Any) -> Schema:
    """The replacement of a property that is too large."""
    node = part if isinstance(part, dict) else {}
    kind = node.get("type")
    text = node.get("description")
    told = _told(node)
    words = " ".join(each for each in (text[:LONGEST_TOLD] if isinstance(text, str) else "", told) if each)
    return {
        **({"type": kind} if isinstance(kind, str) and kind in BESIDE else {}),
        **({"description": words} if words else {}),
    }


def _open(schema: Any) -> Cleaned:
    node = schema if isinstance(schema, dict) else {}
    text = node.get("description")
    words = [text[:LONGEST_TOLD] if isinstance(text, str) else "", _told(schema)]
    described = " ".join(filter(None, words))
    return Cleaned({"type": "object", **({"description": described} if described else {})}, loosened=True)


def _told(schema: Any) -> str:
    """A short description of the schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if isinstance(properties, dict) and properties:
        told = f"with {', '.join(list(properties)[:LONGEST_TOLD])}"
    elif not schema or isinstance(schema, dict) and schema.keys() <= {"type", "description"}:
        return ""
    else:
        try:
            told = f"schema: {json.dumps(_first(schema), ensure_ascii=False)}"
        except (RecursionError, ValueError):
            return ""
    return f"({told if len(told) <= LONGEST_TOLD else told[:LONGEST_TOLD] + '…'})"


def _first(value: Any, levels: int = TOLD_LEVELS) -> Any:
    """The part of a value that fits into a description."""
    if isinstance(value, str):
        return value[:LONGEST_TOLD]
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return "…"
    if isinstance(value, list):
        return [_first(part, levels - 1) for part in value[:TOLD_PARTS]]
    names = [name for name in list(value)[:TOLD_PARTS] if name not in ("$defs", "definitions")]
    return {name[:LONGEST_TOLD]: _first(value[name], levels - 1) for name in names}
