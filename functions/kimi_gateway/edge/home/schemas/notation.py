"""Short forms of JSON Schema (2020-12, as OpenAPI 3.1 has it)."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
SECONDS: Schema = {"type": "integer", "description": "unix seconds"}
MOMENT: Schema = {"type": "string", "description": "RFC 3339, UTC"}


def maybe(of: Schema) -> Schema:
    return {"anyOf": [of, {"type": "null"}]}


def either(*of: Schema) -> Schema:
    return {"anyOf": list(of)}


def one(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def array(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def mapping(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these members; others may follow."""
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def page(of: Schema, **ends: Schema) -> Schema:
    """A list of the gateway's own; `ends` are its members beside the data."""
    return record({"object": one("list"), "data": array(of), "has_more": FLAG, **ends})
