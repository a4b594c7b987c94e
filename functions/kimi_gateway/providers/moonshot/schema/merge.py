"""Merges two clean schemas that must both be satisfied. `{}` allows anything, None nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from kimi_gateway.providers.moonshot.schema.mfjs import BESIDE, LIMITS
from kimi_gateway.providers.moonshot.schema.union import ANYTHING, Clean, Schema, any_will_do, united

_STRICTER: dict[str, Callable[[Any, Any], Any]] = {
    "minimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "maxLength": min,
    "maxItems": min,
}


class Around(Protocol):
    """The schema around both. `opening` are the references that are being expanded. One that leads back to
    itself stays, and keywords beside it are dropped, as the vendor does."""

    opening: set[str]

    def count(self, steps: int = 1) -> None:
        """Count steps of work: parts read, merged, compared or copied. Raises if there are too many."""
        ...

    def deref(self, schema: Schema) -> Clean:
        """The target of a `$ref`, or the `$ref` itself if it leads back to itself."""
        ...


def both(one: Clean, other: Clean, around: Around) -> Clean:
    around.count(2)
    if one is None or other is None:
        return None
    if any_will_do(one) or any_will_do(other):
        kept, bare = (other, one) if any_will_do(one) else (one, other)
        return described(kept, bare.get("description"))
    if one == other:
        return one
    references = {schema["$ref"] for schema in (one, other) if "$ref" in schema}
    if references & around.opening:
        return one if one.get("$ref") in around.opening else other
    around.opening |= references
    try:
        return _both_open(one, other, _open(one, around), _open(other, around), around)
    finally:
        around.opening -= references


def _both_open(one: Schema, other: Schema, opened: Clean, second: Clean, around: Around) -> Clean:
    if opened is None or second is None or "$ref" in opened:
        return opened if second is not None else None
    if "$ref" in second:
        return second
    if opened.keys() == {"type"} and opened["type"] == second.get("type"):
        return other
    if second.keys() == {"type"} and second["type"] == opened.get("type"):
        return one
    text = opened.get("description") or second.get("description")
    around.count((len(opened.get("anyOf", ())) + len(second.get("anyOf", ()))) // 4)
    if (
        "anyOf" in opened
        and "anyOf" in second
        and len(opened["anyOf"]) * len(second["anyOf"]) > LIMITS.branches
    ):
        return opened
    for first, rest in ((opened, second), (second, opened)):
        if "anyOf" in first:
            branches = [both(branch, bare(rest), around) for branch in first["anyOf"]]
            return described(united(branches, around.count), text)
    return _merged(opened, second, around)


def _open(schema: Schema, around: Around) -> Clean:
    if "$ref" not in schema:
        return schema
    return described(around.deref(schema), schema.get("description"), over=True)


def bare(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "description"}


def described(schema: Clean, text: str | None, over: bool = False) -> Clean:
    """The schema with a description. Beside a `$ref` a description was refused if the target has one too
    (2026-08), so the reference gets a branch of its own."""
    if not text or schema is None or ("description" in schema and not over):
        return schema
    return {**({"anyOf": [schema]} if "$ref" in schema else schema), "description": text}


def _merged(one: Schema, other: Schema, around: Around) -> Clean:
    kind = common_type(one.get("type"), other.get("type"))
    if kind is None:
        return None
    merged: Schema = {**other, **one, "type": kind}
    for name, stricter in _STRICTER.items():
        if name in one and name in other:
            merged[name] = stricter(one[name], other[name])
    if "enum" in merged:
        values = one.get("enum") or other["enum"]
        around.count((len(values) + len(other.get("enum", ()))) // 16)
        if "enum" in one and "enum" in other:
            also = {(type(value), value) for value in other["enum"]}
            values = [value for value in values if (type(value), value) in also]
        merged["enum"] = [value for value in values if kind != "integer" or value == int(value)]
        if not merged["enum"]:
            return None
    if kind == "object":
        return _objects(one, other, merged, around)
    if "items" in one and "items" in other:
        items = both(one["items"], other["items"], around)
        merged["items"] = items
        if items is None:  # only the empty list would remain: more likely a mistake
            del merged["items"]
    return {name: value for name, value in merged.items() if name in BESIDE[kind]}


def _objects(one: Schema, other: Schema, merged: Schema, around: Around) -> Clean:
    copied = sum(len(each.get(name, ())) for each in (one, other) for name in ("properties", "required"))
    around.count(copied // 16)
    properties: dict[str, Clean] = {**one.get("properties", {})}
    for name, schema in other.get("properties", {}).items():
        properties[name] = both(properties[name], schema, around) if name in properties else schema
    required = list(dict.fromkeys([*one.get("required", ()), *other.get("required", ())]))
    if any(name in properties and properties[name] is None for name in required):
        return None
    if properties:
        kept = {name: schema for name, schema in properties.items() if schema is not None}
        merged["properties"] = {name: spelt(schema) for name, schema in kept.items()}
    if required:
        merged["required"] = required
    rest = [schema["additionalProperties"] for schema in (one, other) if "additionalProperties" in schema]
    if False in rest:
        merged["additionalProperties"] = False
    elif len(rest) == 2 and True not in rest:
        schema = both(rest[0], rest[1], around)
        merged["additionalProperties"] = schema is not None and (any_will_do(schema) or schema)
    elif rest:
        merged["additionalProperties"] = next((schema for schema in rest if schema is not True), True)
    return merged


def spelt(schema: Schema) -> Schema:
    """The schema with explicit types if it has none."""
    return {**ANYTHING, **schema} if schema.keys() <= {"description"} else schema


def common_type(one: str | None, other: str | None) -> str | None:
    if one is None or other is None or one == other:
        return one or other
    return "integer" if {one, other} == {"integer", "number"} else None
