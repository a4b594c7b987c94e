"""The vendor's check of schemas as the tests' upstream has it: what it refuses, and where."""

from __future__ import annotations

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
    assert mfjs.refusal({"type": "object", "anyOf": [schema["$defs"]["d"]]}) is None  # type: ignore[index]
