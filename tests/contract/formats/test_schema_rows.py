"""Schemas of tools and answers on their way upstream, which refuses those that the vendor refuses."""

from __future__ import annotations

from typing import Any

import pytest

from support.live import LiveGateway
from upstream import ScriptedUpstream

Json = dict[str, Any]
NOTHING = {"type": "object", "properties": {}}

SCHEMAS: dict[str, tuple[Json, Json]] = {
    "annotations are dropped": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "T",
            "type": "object",
            "properties": {"title": {"type": "string", "title": "Title", "examples": ["x"]}},
        },
        {"type": "object", "properties": {"title": {"type": "string"}}},
    ),
    "a constraint that no keyword says is told": (
        {"type": "object", "properties": {"x": {"type": "string", "format": "date", "description": "Day."}}},
        {
            "type": "object",
            "properties": {"x": {"type": "string", "description": 'Day. (format: "date")'}},
        },
    ),
    "an optional value of pydantic": (
        {
            "type": "object",
            "properties": {
                "x": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "X"}
            },
        },
        {"type": "object", "properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
    ),
    "a reference at the root is written out": (
        {
            "$ref": "#/definitions/X",
            "definitions": {"X": {"type": "object", "properties": {"n": {"$ref": "#/definitions/X"}}}},
        },
        {
            "type": "object",
            "properties": {"n": {"$ref": "#/$defs/X"}},
            "$defs": {"X": {"type": "object", "properties": {"n": {"$ref": "#/$defs/X"}}}},
        },
    ),
    "alternatives at the root are one object": (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
            "description": "(One of these forms: a, optionally b; or b, optionally a.)",
        },
    ),
    "const, oneOf, nullable and an exclusive bound": (
        {
            "type": "object",
            "properties": {
                "k": {"oneOf": [{"const": "a"}, {"const": 1}]},
                "n": {"type": "integer", "exclusiveMinimum": 0, "nullable": True},
            },
        },
        {
            "type": "object",
            "properties": {
                "k": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "integer", "enum": [1]}]},
                "n": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
            },
        },
    ),
    "a list of types with an enum": (
        {"type": "object", "properties": {"x": {"type": ["string", "null"], "enum": ["a", None]}}},
        {
            "type": "object",
            "properties": {"x": {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}},
        },
    ),
    "a tuple": (
        {"type": "object", "properties": {"p": {"type": "array", "items": [{"type": "number"}]}}},
        {
            "type": "object",
            "properties": {"p": {"type": "array", "description": '(prefixItems: [{"type": "number"}])'}},
        },
    ),
    "what is required is declared": (
        {"type": "object", "properties": {}, "required": ["x"], "additionalProperties": {"type": "string"}},
        {
            "type": "object",
            "properties": {"x": {"type": "string"}},
            "required": ["x"],
            "additionalProperties": {"type": "string"},
        },
    ),
    "nothing is an object": ({}, NOTHING),
}


@pytest.mark.parametrize("row", SCHEMAS)
def test_a_schema_is_said_in_the_vendors_keywords(
    gateway: LiveGateway, upstream: ScriptedUpstream, row: str
) -> None:
    given, sent = SCHEMAS[row]
    style = {"type": "json_schema", "json_schema": {"name": "n", "schema": given}}
    answer = gateway.chat(
        gateway.key(),
        tools=[{"type": "function", "function": {"name": "a", "parameters": given}}],
        response_format=style,
    )
    assert answer.status_code == 200, answer.text
    body = upstream.chats[0].body
    assert body["response_format"]["json_schema"] == {"name": "n", "schema": sent}
    assert body["tools"][0]["function"]["parameters"] == sent
