"""Schemas of tools in the manner of public servers and generators, small and in words of our own, each with
calls that they allow.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}


def of(properties: Json, *required: str, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def one_of(*branches: Json, **more: Any) -> Json:
    return {"oneOf": list(branches), **more}


def nested(depth: int) -> Json:
    return TEXT if not depth else {"type": "object", "properties": {f"level{depth}": nested(depth - 1)}}


def optional(inner: Json, **more: Any) -> Json:
    """As pydantic writes `X | None = None`."""
    return {"anyOf": [inner, {"type": "null"}], "default": None, **more}


DRAFT7 = {"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": False}
BLOCK = {
    "type": "object",
    "properties": {
        "type": {"const": "text"},
        "text": {"$ref": "#/$defs/rich"},
        "children": {"type": "array"},
    },
    "required": ["type"],
}
CORPUS: dict[str, tuple[Json, list[Json]]] = {
    "github: issues": (
        of(
            {
                "owner": TEXT,
                "repo": TEXT,
                "state": {"enum": ["open", "closed", "all"]},
                "labels": {"type": "array", "items": TEXT},
                "since": {"type": "string", "format": "date-time"},
                "perPage": {"type": "number", "minimum": 1, "maximum": 100},
            },
            "owner",
            "repo",
        ),
        [
            {"owner": "a", "repo": "b"},
            {"owner": "a", "repo": "b", "state": "all", "labels": ["x"], "perPage": 5},
        ],
    ),
    "github: files of a commit": (
        of(
            {"files": {"type": "array", "items": of({"path": TEXT, "content": TEXT}, "path", "content")}},
            "files",
        ),
        [{"files": []}, {"files": [{"path": "a", "content": ""}]}],
    ),
    "github: a review by its method": (
        of(
            {
                "method": {"type": "string", "enum": ["create", "submit"]},
                "event": {"type": ["string", "null"]},
            },
            "method",
        ),
        [{"method": "create"}, {"method": "submit", "event": None}],
    ),
    "files: read": (
        of(
            {"path": TEXT, "head": {"type": "number", "description": "Lines"}, "tail": {"type": "number"}},
            "path",
            **DRAFT7,
        ),
        [{"path": "/a", "head": 3}],
    ),
    "files: edit": (
        of(
            {
                "path": TEXT,
                "dryRun": {"type": "boolean", "default": False},
                "edits": {
                    "type": "array",
                    "items": of({"oldText": TEXT, "newText": TEXT}, "oldText", **DRAFT7),
                },
            },
            "path",
            "edits",
            **DRAFT7,
        ),
        [{"path": "a", "edits": [{"oldText": "x", "newText": "y"}], "dryRun": True}],
    ),
    "browser: click": (
        of(
            {
                "element": TEXT,
                "ref": TEXT,
                "button": {"type": "string", "enum": ["left", "right"]},
                "modifiers": {"type": "array", "items": {"enum": ["Alt", "Shift"]}},
            },
            "element",
            "ref",
            **DRAFT7,
        ),
        [{"element": "OK", "ref": "e1", "modifiers": ["Alt"]}],
    ),
    "browser: forms": (
        of(
            {
                "fields": {
                    "type": "array",
                    "minItems": 1,
                    "items": of(
                        {"name": TEXT, "type": {"enum": ["textbox", "checkbox"]}, "value": TEXT},
                        "name",
                        "type",
                    ),
                }
            },
            "fields",
        ),
        [{"fields": [{"name": "a", "type": "checkbox", "value": "true"}]}],
    ),
    "browser: wait": (
        of(
            {"time": {"type": "number", "exclusiveMinimum": 0}, "text": TEXT},
            anyOf=[{"required": ["time"]}, {"required": ["text"]}],
        ),
        [{"time": 1.5}, {"text": "done"}, {"time": 1, "text": "x"}],
    ),
    "notion: a page's parent": (
        of(
            {
                "parent": one_of(
                    of({"page_id": TEXT}, "page_id"),
                    of({"database_id": {"type": "string", "format": "uuid"}}, "database_id"),
                ),
                "properties": {"type": "object", "additionalProperties": True},
            },
            "parent",
        ),
        [
            {"parent": {"page_id": "p"}},
            {"parent": {"database_id": "d"}, "properties": {"Name": {"title": []}}},
        ],
    ),
    "notion: blocks": (
        of(
            {"children": {"type": "array", "items": {"$ref": "#/$defs/block"}}},
            "children",
            **{"$defs": {"rich": {"type": "array", "items": of({"content": TEXT})}, "block": BLOCK}},
        ),
        [{"children": [{"type": "text", "text": [{"content": "a"}], "children": [1]}]}],
    ),
    "slack: post": (
        of(
            {
                "channel_id": {"type": "string", "pattern": "^[CG]"},
                "text": {"type": "string", "maxLength": 99},
            },
            "channel_id",
            "text",
        ),
        [{"channel_id": "C1", "text": "hi"}],
    ),
    "slack: a user or a channel": (
        {
            "type": "object",
            "oneOf": [of({"user": TEXT}, "user"), of({"channel": TEXT, "thread": TEXT}, "channel")],
        },
        [{"user": "U"}, {"channel": "C", "thread": "1"}],
    ),
    "xcode: a type that its values do not have": (
        of({"operation": {"type": "object", "enum": ["move", "copy"]}, "to": TEXT}, "to"),
        [{"to": "b"}],
    ),
    "xcode: settings by name": (
        of(
            {"scheme": TEXT, "settings": {"type": "object", "patternProperties": {"^[A-Z_]+$": TEXT}}},
            "scheme",
        ),
        [{"scheme": "App", "settings": {"ARCHS": "arm64"}}],
    ),
    "database: a query": (
        of(
            {
                "sql": TEXT,
                "params": {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}},
            },
            "sql",
        ),
        [{"sql": "select 1", "params": [1, "a", None, True]}],
    ),
    "database: columns, one of them required": (
        of(
            {
                "columns": {
                    "type": "array",
                    "items": of({"name": TEXT, "required": {"type": "boolean"}}, "name"),
                }
            },
            "columns",
        ),
        [{"columns": [{"name": "id", "required": True}]}],
    ),
    "maps: a point": (
        of(
            {
                "point": {
                    "type": "array",
                    "prefixItems": [{"type": "number"}, {"type": "number"}],
                    "items": False,
                }
            },
            "point",
        ),
        [{"point": [1, 2.5]}],
    ),
    "memory: relations": (
        of(
            {
                "relations": {
                    "type": "array",
                    "items": of({"from": TEXT, "to": TEXT, "relationType": TEXT}, "from", "to"),
                }
            },
            "relations",
        ),
        [{"relations": [{"from": "a", "to": "b", "relationType": "knows"}]}],
    ),
    "thinking: a step": (
        of(
            {
                "thought": TEXT,
                "number": {"type": "integer", "minimum": 1},
                "next": {"type": "boolean"},
                "branch": {"type": "integer", "exclusiveMinimum": 0},
            },
            "thought",
            "next",
        ),
        [{"thought": "t", "next": False, "number": 1, "branch": 1}],
    ),
}
