"""The part of the corpus that generators write: OpenAPI bridges, zod, pydantic."""

from __future__ import annotations

from support.tool_corpus import DRAFT7, TEXT, WHOLE, Json, nested, of, one_of, optional

GENERATED: dict[str, tuple[Json, list[Json]]] = {
    "openapi: an inherited body": (
        of(
            {"body": {"allOf": [{"$ref": "#/$defs/Base"}, of({"name": TEXT}, "name")]}},
            "body",
            **{
                "$defs": {"Base": of({"id": {"type": "integer", "format": "int64"}}, "id", xml={"name": "b"})}
            },
        ),
        [{"body": {"id": 1, "name": "a"}}],
    ),
    "openapi: a discriminator": (
        of(
            {
                "pet": one_of(
                    {"$ref": "#/definitions/Cat"},
                    {"$ref": "#/definitions/Dog"},
                    discriminator={"propertyName": "kind"},
                )
            },
            "pet",
            definitions={
                "Cat": of({"kind": {"enum": ["cat"]}, "lives": WHOLE}, "kind"),
                "Dog": of({"kind": {"enum": ["dog"]}}, "kind"),
            },
        ),
        [{"pet": {"kind": "cat", "lives": 9}}, {"pet": {"kind": "dog"}}],
    ),
    "openapi: nullable and examples": (
        of(
            {
                "q": {"type": "string", "nullable": True, "example": "x"},
                "page": {"type": "integer", "format": "int32", "default": 1},
            }
        ),
        [{"q": "a", "page": 2}, {}],
    ),
    "openapi: a filter in twelve levels": (
        of({"filter": nested(12), "limit": WHOLE}, "limit"),
        [{"limit": 1}, {"limit": 1, "filter": {"level12": {"level11": {"level10": {}}}}}],
    ),
    "openapi: 600 countries": (
        of({"country": {"enum": [f"country number {at:04}" for at in range(600)]}, "city": TEXT}, "country"),
        [{"country": "country number 0007", "city": "b"}],
    ),
    "zod: a union of literals": (
        of(
            {
                "unit": {"anyOf": [{"type": "string", "const": name} for name in ("c", "f")]},
                "id": {"type": ["string", "number"]},
            },
            "unit",
            **DRAFT7,
        ),
        [{"unit": "c", "id": 1}, {"unit": "f", "id": "x"}],
    ),
    "zod: a record and a tuple": (
        of(
            {
                "env": {
                    "type": "object",
                    "additionalProperties": TEXT,
                    "propertyNames": {"pattern": "^[A-Z]"},
                },
                "size": {"type": "array", "items": [WHOLE, WHOLE], "minItems": 2, "maxItems": 2},
            },
            **DRAFT7,
        ),
        [{"env": {"A": "1"}, "size": [1, 2]}],
    ),
    "zod: a tree": (
        of(
            {"root": {"$ref": "#/definitions/node"}},
            "root",
            definitions={
                "node": of(
                    {"value": TEXT, "children": {"type": "array", "items": {"$ref": "#/definitions/node"}}},
                    "value",
                )
            },
        ),
        [{"root": {"value": "a", "children": [{"value": "b", "children": []}]}}],
    ),
    "zod: any and unknown": (of({"data": {}, "more": True}), [{"data": [1, {"a": None}], "more": "x"}, {}]),
    "pydantic: optional fields and an enum": (
        of(
            {
                "level": {"$ref": "#/$defs/Level"},
                "tags": optional({"type": "array", "items": TEXT}, title="Tags"),
                "when": optional({"type": "string", "format": "date"}),
            },
            "level",
            title="Args",
            **{"$defs": {"Level": {"type": "string", "enum": ["low", "high"], "title": "Level"}}},
        ),
        [{"level": "low", "tags": None}, {"level": "high", "tags": ["a"], "when": "2026-01-01"}],
    ),
    "pydantic: a described model": (
        of(
            {"where": {"allOf": [{"$ref": "#/$defs/Where"}], "description": "Place", "default": {"x": 1}}},
            title="M",
            **{
                "$defs": {
                    "Where": of(
                        {"x": WHOLE, "y": {"type": "integer", "multipleOf": 2}}, "x", description="A point"
                    )
                }
            },
        ),
        [{"where": {"x": 1, "y": 4}}, {}],
    ),
    "pydantic: conditions": (
        of(
            {"kind": TEXT, "card": TEXT, "iban": TEXT},
            "kind",
            allOf=[
                {"if": {"properties": {"kind": {"const": "card"}}}, "then": {"required": ["card"]}},
                {"if": {"properties": {"kind": {"const": "iban"}}}, "then": {"required": ["iban"]}},
            ],
        ),
        [{"kind": "card", "card": "4"}, {"kind": "iban", "iban": "DE"}],
    ),
}

OPENED = {"openapi: a filter in twelve levels", "openapi: 600 countries"}
