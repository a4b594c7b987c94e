"""The parts of a clean schema with their depth and size, and shared definitions for repeated parts."""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterator
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.moonshot.schema.union import Schema

LEAST_SHARED = 100  # bytes of a part that is worth a definition
DEEPER = 12  # levels from here on count the same
# The limit is in marshalled bytes; as JSON a part is a third shorter, and a reference has about 30.
REFERENCE = "#/$defs/"


@dataclass(slots=True)
class Place:
    """A part and its depth."""

    level: int
    node: Schema


def bytes_of(schema: Any) -> int:
    """The size as compact JSON; three characters count as some writers escape them."""
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass")) + 5 * sum(map(text.count, "<>&"))


def below(node: Schema) -> list[tuple[int, Schema]]:
    """The parts directly below, with their number of steps."""
    found: list[tuple[int, Schema]] = []
    if "anyOf" in node:
        found += [(0, part) for part in node["anyOf"]]
    if "properties" in node:
        found += [(1, part) for part in node["properties"].values()]
    if "items" in node:
        found.append((1, node["items"]))
    if type(node.get("additionalProperties")) is dict:
        found.append((1, node["additionalProperties"]))
    return found


def places(root: Schema) -> Iterator[Place]:
    """All parts, the root first. A definition is as deep as the deepest place that refers to it from
    outside."""
    definitions = root.get("$defs", {})
    levels = _levels(root, definitions) if definitions else {}
    tops = [(0, root), *((levels.get(name, 0), part) for name, part in definitions.items())]
    while tops:
        level, node = tops.pop(0)
        inside = [(level, node)]
        while inside:
            level, node = inside.pop()
            yield Place(level, node)
            inside += [(min(level + step, DEEPER), part) for step, part in below(node)]


def _levels(root: Schema, definitions: Schema) -> dict[str, int]:
    levels: dict[str, int] = {}
    waiting: list[tuple[int, Schema, frozenset[str]]] = [(0, root, frozenset())]
    while waiting:
        level, node, around = waiting.pop()
        name = node["$ref"].removeprefix(REFERENCE) if "$ref" in node else ""
        if name in definitions and name not in around and level > levels.get(name, -1):
            levels[name] = level
            waiting.append((level, definitions[name], around | {name}))
        waiting += [(min(level + step, DEEPER), part, around) for step, part in below(node)]
    return levels


def shared(root: Schema, least: int = LEAST_SHARED) -> Schema:
    """The schema with parts of at least `least` bytes that occur several times as definitions."""
    texts: dict[bytes, int] = {}
    keys: dict[int, bytes] = {}
    for place in places(root):
        if place.node is not root and len(place.node) > 1 or "anyOf" in place.node:
            key = marshal.dumps(place.node, 2)
            if len(key) > least:
                keys[id(place.node)] = key
                texts[key] = texts.get(key, 0) + 1
    definitions: Schema = root.get("$defs", {})
    own = {id(part) for part in definitions.values()}
    names: dict[bytes, str] = {}

    def say(node: Schema) -> Schema:
        key = keys.get(id(node), b"")
        if id(node) in own or texts.get(key, 0) < 2:
            return said(node)
        if key not in names:
            number = len(names) + 1
            while f"shared{number}" in definitions:
                number += 1
            names[key] = f"shared{number}"
            definitions[names[key]] = said(node)
        return {"$ref": REFERENCE + names[key]}

    def said(node: Schema) -> Schema:
        if "anyOf" in node:
            node["anyOf"] = [say(part) for part in node["anyOf"]]
        if "properties" in node:
            node["properties"] = {name: say(part) for name, part in node["properties"].items()}
        for name in ("items", "additionalProperties"):
            if type(node.get(name)) is dict:
                node[name] = say(node[name])
        return node

    for part in list(definitions.values()):
        said(part)
    said(root)
    if definitions:
        root["$defs"] = definitions
    return root
