"""The JSON Schema that the vendor takes ("Moonshot flavored"): what becomes of each keyword, as data.

Source: the vendor's specification and validator (MoonshotAI/walle, documents and code as of 2026-08), and
live refusals of 2026-03 to 2026-09. Where its versions disagree, the form that all of them take is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# "keep": as it is. "rewrite": said in other keywords, cleaner.py. "tell": no keyword
# can say it, so the description does. All others are annotations to the vendor and are dropped: `title`,
# `$schema`, `$id`, `$comment`, `examples`, `deprecated`, `readOnly`, `x-…` and what nobody knows.
Fate = Literal["keep", "rewrite", "tell"]
KEYWORDS: Mapping[str, Fate] = {
    "description": "keep",
    "type": "rewrite",  # a list of types: one branch each
    "properties": "keep",
    "required": "keep",
    "additionalProperties": "keep",
    "items": "keep",
    "minItems": "keep",
    "maxItems": "keep",
    "minLength": "keep",
    "maxLength": "keep",
    "pattern": "keep",
    "minimum": "keep",
    "maximum": "keep",
    "default": "keep",
    "enum": "rewrite",  # of one type each, which stands beside it
    "const": "rewrite",
    "anyOf": "rewrite",  # nothing but a description beside it
    "oneOf": "rewrite",
    "allOf": "rewrite",
    "$ref": "rewrite",  # to #/$defs/… of the root, or #
    "$defs": "rewrite",
    "definitions": "rewrite",
    "nullable": "rewrite",
    "prefixItems": "rewrite",
    "exclusiveMinimum": "rewrite",
    "exclusiveMaximum": "rewrite",
    "additionalItems": "tell",
    "contains": "tell",
    "contentEncoding": "tell",
    "contentMediaType": "tell",
    "dependencies": "tell",
    "dependentRequired": "tell",
    "dependentSchemas": "tell",
    "else": "tell",
    "format": "tell",
    "if": "tell",
    "maxContains": "tell",
    "maxProperties": "tell",
    "minContains": "tell",
    "minProperties": "tell",
    "multipleOf": "tell",
    "not": "tell",
    "patternProperties": "tell",
    "propertyNames": "tell",
    "then": "tell",
    "unevaluatedItems": "tell",
    "unevaluatedProperties": "tell",
    "uniqueItems": "tell",
}

# What may stand beside each type.
_EVERYWHERE = frozenset(("type", "description"))
_SCALAR = _EVERYWHERE | {"enum", "default"}
BESIDE: Mapping[str, frozenset[str]] = {
    "object": _EVERYWHERE | {"properties", "required", "additionalProperties"},
    "array": _EVERYWHERE | {"items", "minItems", "maxItems"},
    "string": _SCALAR | {"minLength", "maxLength", "pattern"},
    "number": _SCALAR | {"minimum", "maximum"},
    "integer": _SCALAR | {"minimum", "maximum"},
    "boolean": _SCALAR,
    "null": _EVERYWHERE,
}
# The type that a keyword speaks of, where none is named.
IMPLIED: Mapping[str, str] = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "minItems": "array",
    "maxItems": "array",
    "minLength": "string",
    "maxLength": "string",
    "pattern": "string",
    "minimum": "number",
    "maximum": "number",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one schema as a whole. Source: defaults of the vendor's validator, 2026-08; `items` counts as a
    step of depth in no version seen, and is counted to be safe."""

    bytes: int = 15_000  # of compact JSON
    depth: int = 10  # steps into `properties`, `items`, `additionalProperties`
    keys: int = 1_000  # in all `properties`
    values: int = 500  # in all `enum`s
    counted_values: int = 250  # above so many the characters of all values count too
    characters: int = 7_500
    branches: int = 100  # of one `anyOf`


LIMITS = Limits()
# Names that no property may have (the validator, 2026-08).
RESERVED = frozenset(("$defs", "$ref", "anyOf", "required", "additionalProperties"))
