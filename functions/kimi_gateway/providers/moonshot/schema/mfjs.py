"""The vendor's dialect of JSON Schema ("Moonshot flavored"): the treatment of each keyword, as data.

Source: the vendor's specification and validator (MoonshotAI/walle, documents and code as of 2026-08), and
live refusals from 2026-03 to 2026-09. Where its versions disagree, the form that all of them accept is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kimi_gateway.dataclass import dataclass

# "keep": unchanged. "rewrite": expressed with other keywords, cleaner.py. "tell": no keyword can express it,
# so the description does. All others are annotations and are dropped: `title`, `$schema`, `$id`, `$comment`,
# `examples`, `deprecated`, `readOnly`, `x-…` and unknown ones.
Fate = Literal["keep", "rewrite", "tell"]
KEYWORDS: Mapping[str, Fate] = {
    "description": "keep",
    "type": "rewrite",  # a list of types becomes one branch each
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
    "enum": "rewrite",  # of one type, which must be present
    "const": "rewrite",
    "anyOf": "rewrite",  # only a description may be beside it
    "oneOf": "rewrite",
    "allOf": "rewrite",
    "$ref": "rewrite",  # only to #/$defs/… of the root, or #
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

# Keywords that each type may have.
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
# The type that a keyword implies, if there is none.
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
    """Limits of one schema as a whole. Source: defaults of the vendor's validator, 2026-08. No known version
    counts `items` as a step of depth; it is counted here to be safe."""

    bytes: int = 15_000  # of compact JSON
    depth: int = 10  # steps into `properties`, `items`, `additionalProperties`
    keys: int = 1_000  # in all `properties`
    values: int = 500  # in all `enum`s
    counted_values: int = 250  # above this number the characters of all values are limited too
    characters: int = 7_500
    branches: int = 100  # of one `anyOf`


LIMITS = Limits()
# Names that no property may have (the validator, 2026-08).
RESERVED = frozenset(("$defs", "$ref", "anyOf", "required", "additionalProperties"))
