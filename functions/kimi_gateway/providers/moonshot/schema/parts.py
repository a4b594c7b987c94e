"""Translates single keywords of a JSON Schema to the vendor's form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kimi_gateway.providers.moonshot.schema.merge import described
from kimi_gateway.providers.moonshot.schema.mfjs import BESIDE, IMPLIED, KEYWORDS
from kimi_gateway.providers.moonshot.schema.union import Clean, Schema, united

LONGEST_TOLD = 400  # characters of one constraint in a description
Told = list[tuple[str, Any]]


def bounds(node: Schema, types: list[str], told: Told) -> Schema:
    own: Schema = {}
    for name in ("minItems", "maxItems", "minLength", "maxLength"):
        if (value := _number(node.get(name))) is not None:
            own[name] = max(0, math.ceil(value))
    for name in ("minimum", "maximum"):
        if (value := _number(node.get(name))) is not None:
            own[name] = value
    _exclusive(node, own, types, told)
    if isinstance(node.get("pattern"), str):
        own["pattern"] = node["pattern"]
    return own


def _exclusive(node: Schema, own: Schema, types: list[str], told: Told) -> None:
    """Exclusive bounds: the next whole number for integers; otherwise the bound itself, and words for the
    rest."""
    for name, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        value: Any = own.get(bound) if node.get(name) is True else _number(node.get(name))
        if value is None:
            continue
        if types == ["integer"]:
            value = (math.floor(value) if step > 0 else math.ceil(value)) + step
        else:
            told.append((name, value))
        before: float = own.get(bound, value)
        own[bound] = max(value, before) if step > 0 else min(value, before)


def _number(value: Any) -> int | float | None:
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) in (int, float) else None


def typed(own: Schema, types: list[str], alone: bool, impossible: bool) -> Clean:
    """`own` keywords under each type that allows them. `alone`: nothing else names the type, so the keywords
    imply it. `impossible`: no object can satisfy them."""
    implied = [IMPLIED[name] for name in own if name in IMPLIED]
    if not implied and not types:
        return {}
    if not types:
        types = implied[:1] if alone else [name for name in BESIDE if name != "integer"]
    branches: list[Clean] = [
        {"type": kind, **{name: value for name, value in own.items() if name in BESIDE[kind]}}
        for kind in types
        if not (impossible and kind == "object")
    ]
    return united(branches)


def default(node: Schema, types: list[str]) -> Schema:
    """A scalar default that matches the type; the vendor accepts no other."""
    value = node.get("default")
    fits = {"string": str, "boolean": bool, "integer": int, "number": int | float}
    kind = types[0] if len(types) == 1 else ""
    if (
        kind not in fits
        or not isinstance(value, fits[kind])
        or (isinstance(value, bool) != (kind == "boolean"))
    ):
        return {}
    return {"default": value}


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def any_fits(values: list[Any], types: list[str]) -> bool:
    found = set(map(type, values))
    return any(not found.isdisjoint(_TYPES[name]) for name in types)


def enumerated(values: list[Any], count: Callable[[int], None]) -> Clean:
    """One branch for each type, because the vendor accepts no mixed enums."""
    return united(list(_by_type(values, count)), count)


def _by_type(values: list[Any], count: Callable[[int], None]) -> Iterator[Clean]:
    texts = [value for value in values if isinstance(value, str)]
    flags = [value for value in values if isinstance(value, bool)]
    numbers = [_number(value) for value in values if type(value) in (int, float)]
    if texts:
        yield {"type": "string", "enum": list(dict.fromkeys(texts))}
    if numbers:
        whole = all(isinstance(value, int) for value in numbers)
        yield {"type": "integer" if whole else "number", "enum": list(dict.fromkeys(numbers))}
    if flags:
        yield {"type": "boolean"} if len(set(flags)) > 1 else {"type": "boolean", "enum": flags[:1]}
    if None in values:
        yield {"type": "null"}
    for kind, name in ((dict, "object"), (list, "array")):
        containers = [value for value in values if isinstance(value, kind)]
        if containers:
            yield described({"type": name}, words([("enum", containers)], count))


def description(node: Mapping[str, Any], told: list[str], clean: Schema) -> str:
    """The node's own description, or that of its parts, and inexpressible keywords in words."""
    own = node.get("description")
    text: str = own if isinstance(own, str) and own else clean.get("description", "")
    return " ".join([text, *(each for each in told if each and each not in text)]).strip()


def told_inside(of_all: list[Any], count: Callable[[int], None]) -> list[str]:
    """Inexpressible keywords of all parts of an `allOf`, in words."""
    found: list[str] = []
    waiting = of_all[::-1]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            told = words([(name, part[name]) for name in part if KEYWORDS.get(name) == "tell"], count)
            found.append(told)
            inner = part.get("allOf")
            waiting += inner[::-1] if isinstance(inner, list) else ()
    return found


def words(told: Told, count: Callable[[int], None]) -> str:
    texts = [(name, json.dumps(value, ensure_ascii=False)) for name, value in told]
    count(sum(len(text) for _, text in texts) // 200)
    return " ".join(f"({name}: {_cut(text)})" for name, text in texts)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}…"
