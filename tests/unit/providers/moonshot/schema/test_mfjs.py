"""The vendor's check of schemas as the tests' upstream has it: what it refuses, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from upstream import mfjs

Json = dict[str, Any]
STRING = {"type": "string"}
REFUSED: dict[str, tuple[Any, str]] = {
    "an annotation": ({"type": "string", "title": "T"}, "unsupported keywords: title"),
    "a format": ({"type": "string", "format": "date"}, "unsupported keywords: format"),
    "a tuple": ({"type": "array", "prefixItems": [STRING]}, "unsupported keywords: prefixItems"),
    "an exclusive bound": ({"type": "integer", "exclusiveMinimum": 1}, "exclusiveMinimum"),
    "no type": ({"description": "x"}, "type is not defined"),
    "no type beside an enum": ({"enum": ["a"]}, "type is not defined"),
    "a type that is none": ({"type": "text"}, "invalid type"),
    "several types": ({"type": ["string", "null"]}, "invalid type"),
    "true": (True, "must be an object"),
    "a type beside anyOf": ({"type": "string", "anyOf": [STRING]}, "when using anyOf"),
    "no branch": ({"anyOf": []}, "1-100 items"),
    "oneOf": ({"oneOf": [STRING]}, "type is not defined"),
    "a type beside a reference": ({"$ref": "#/$defs/d", "type": "string"}, "when using $ref"),
    "two descriptions of one thing": ({"$ref": "#/$defs/d", "description": "x"}, "conflicting keywords"),
    "a reference outside": ({"$ref": "https://a.test/b.json"}, "must start with #/$defs/"),
    "a reference to a property": ({"$ref": "#/properties/x"}, "must start with #/$defs/"),
    "a reference to nothing": ({"$ref": "#/$defs/e"}, "invalid $ref path"),
    "definitions below the root": ({"type": "object", "$defs": {}}, "unsupported keywords: $defs"),
    "what is required and not there": ({"type": "object", "required": ["y"]}, "'y' is not defined"),
    "an enum of two types": ({"type": "string", "enum": ["a", 1]}, "does not match string"),
    "an enum of nothing": ({"type": "string", "enum": []}, "1-500 items"),
    "items of nothing": ({"type": "array", "items": {}}, "must not be empty"),
    "a negative length": ({"type": "string", "minLength": -1}, "non-negative"),
}


def holding(schema: Any) -> Json:
    shared = {"type": "string", "description": "d"}
    return {"type": "object", "properties": {"x": schema}, "$defs": {"d": shared}}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_with_the_place(row: str) -> None:
    schema, text = REFUSED[row]
    refusal = mfjs.refusal(holding(schema))
    assert refusal is not None
    assert "At path 'properties.x" in refusal
    assert text in refusal


def nested(depth: int, group: str = "properties") -> Json:
    schema: Json = {"type": "string"}
    for _ in range(depth):
        inner = {"properties": {"x": schema}} if group == "properties" else {group: schema}
        schema = {"type": "array" if group == "items" else "object", **inner}
    return schema


def valued(values: int, length: int) -> Json:
    """Spread over several enums, since all of them count."""
    words = [f"{at:0{length}}" for at in range(values)]
    cut = values // 2
    return {
        "type": "object",
        "properties": {
            "a": {"type": "string", "enum": words[:cut]},
            "b": {"type": "string", "enum": words[cut:]},
        },
    }


def sized(size: int) -> Json:
    empty: Json = {"type": "object", "description": ""}
    return {**empty, "description": "x" * (size - len(json.dumps(empty, separators=(",", ":"))))}


def branched(branches: int) -> Json:
    return {"type": "object", "properties": {"x": {"anyOf": [STRING] * branches}}}


# What is just allowed, what is just not, and the vendor's word for it.
BOUNDS: dict[str, tuple[Json, Json, str]] = {
    "depth of properties": (nested(10), nested(11), "depth"),
    "depth of items": (
        {"type": "object", "properties": {"x": nested(9, "items")}},
        {"type": "object", "properties": {"x": nested(10, "items")}},
        "depth",
    ),
    "depth behind a reference": (
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/d"}}, "$defs": {"d": nested(9)}},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/d"}}, "$defs": {"d": nested(10)}},
        "depth",
    ),
    "bytes": (sized(15_000), sized(15_001), "size"),
    "values": (valued(500, 3), valued(501, 3), "enum values"),
    "characters of many values": (valued(251, 29), valued(251, 30), "characters"),
    "characters of few values": (valued(250, 55), valued(250, 60), "size"),
    "branches": (branched(100), branched(101), "1-100 items"),
}


@pytest.mark.parametrize("row", BOUNDS)
def test_bounds_of_the_whole(row: str) -> None:
    allowed, beyond, word = BOUNDS[row]
    assert mfjs.refusal(allowed) is None
    assert word in str(mfjs.refusal(beyond))


def test_property_keys_count_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than 1,000 of them fill 15,000 bytes, unless they are shared or of nothing."""
    monkeypatch.setattr(mfjs, "MOST_BYTES", 100_000)

    def keyed(keys: int) -> Json:
        inner = {"type": "object", "properties": {f"{at}": {"type": "null"} for at in range(400)}}
        rest = {f"{at}": {"type": "null"} for at in range(keys - 401)}
        return {"type": "object", "properties": {"x": inner, **rest}}

    assert mfjs.refusal(keyed(1_000)) is None
    assert "properties keys(1001)" in str(mfjs.refusal(keyed(1_001)))


@pytest.mark.parametrize("name", ["$defs", "$ref", "anyOf", "required", "additionalProperties"])
def test_some_names_of_properties_are_reserved(name: str) -> None:
    refusal = mfjs.refusal(holding({"type": "object", "properties": {name: STRING}}))
    assert "reserved" in str(refusal)


@pytest.mark.parametrize("root", [{}, {"type": "string"}, {"anyOf": [{"type": "object"}]}, None])
def test_the_root_must_say_that_it_is_an_object(root: Any) -> None:
    assert mfjs.refusal(root) == mfjs.NO_ROOT


def test_recursion_must_end() -> None:
    assert mfjs.refusal(holding({"$ref": "#"})) is None
    endless = {**holding({"$ref": "#"}), "required": ["x"]}
    assert "infinite recursion" in str(mfjs.refusal(endless))
    array = {"type": "array", "items": {"$ref": "#"}}
    assert mfjs.refusal({**holding(array), "required": ["x"]}) is None
    assert mfjs.refusal({**holding({**array, "minItems": 1}), "required": ["x"]}) is not None


def test_what_is_in_order_is_taken() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "enum": ["x"], "default": "x", "description": "A"},
            "b": {"anyOf": [{"$ref": "#/$defs/d"}, {"type": "null"}], "description": "B"},
            "c": {"type": "array", "items": {"$ref": "#/$defs/d"}, "minItems": 1, "maxItems": 3},
            "e": {"type": "number", "minimum": 0, "maximum": 1.5},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"d": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}},
    }
    assert mfjs.refusal(schema) is None
    beside = {"type": "object", "anyOf": [schema["$defs"]["d"]]}  # type: ignore[index]
    assert "when using anyOf" in str(mfjs.refusal(beside))
