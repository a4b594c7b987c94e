"""The vendor's check of a JSON Schema, in the strictest reading of its specification and its validator, both
of 2026-08, and of live refusals since (docs/upstream.md). Its limits are written here once more, not taken
from the gateway, so that a wrong number there is found.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

TEXT = "tools.function.parameters is not a valid moonshot flavored json schema, details: <At path '{}': {}>"
NO_ROOT = 'tools.function.parameters.type is required and must be "object"'
_ANNOTATED = {"type", "description"}
BESIDE = {
    "object": _ANNOTATED | {"properties", "required", "additionalProperties"},
    "array": _ANNOTATED | {"items", "minItems", "maxItems"},
    "string": _ANNOTATED | {"enum", "default", "minLength", "maxLength", "pattern"},
    "number": _ANNOTATED | {"enum", "default", "minimum", "maximum"},
    "integer": _ANNOTATED | {"enum", "default", "minimum", "maximum"},
    "boolean": _ANNOTATED | {"enum", "default"},
    "null": _ANNOTATED,
}
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}
RESERVED = ("$defs", "$ref", "anyOf", "required", "additionalProperties")
MOST_BYTES = 15_000
DEEPEST = 10
MOST_KEYS = 1_000
MOST_VALUES = 500
UNCOUNTED_VALUES = 250  # up to here the length of an enum's values does not matter
MOST_CHARACTERS = 7_500
_LIMITS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minimum", "maximum"))


def refusal(schema: Any) -> str | None:
    """The vendor's text, None where the schema is in order."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return NO_ROOT
    for path, what in itertools.chain(_sizes(schema), _faults(schema, schema, ""), _totals(schema)):
        return TEXT.format(path or "root", what)
    if not _ends(schema, schema, ()):
        return TEXT.format("root", "detected infinite recursion without termination condition")
    return None


def _faults(node: Any, root: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, dict):
        yield path, "property schema must be an object"
        return
    if not isinstance(node.get("description", ""), str):
        yield path, "description must be a string"
    own = node.keys() - ({"$defs"} if node is root else set())
    if "$ref" in node:
        yield from _reference(node, own, root, path)
    elif "anyOf" in node:
        yield from _union(node, own, path)
    else:
        yield from _typed(node, own, path)
    for name, inner in _inner(node, root):
        yield from _faults(inner, root, f"{path}.{name}".lstrip("."))


def _sizes(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        yield "", "schema exceeds maximum allowed size"


def _totals(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What counts over the whole of it; only for what has no other fault."""
    nodes = list(_nodes(schema))
    keys = sum(len(node.get("properties", ())) for node in nodes)
    if keys > MOST_KEYS:
        yield (
            "",
            f"total number of properties keys({keys}) across all objects exceeds the limit of {MOST_KEYS}",
        )
    values = [value for node in nodes for value in node.get("enum", ())]
    if len(values) > MOST_VALUES:
        yield "", f"total number of enum values exceeds maximum limit of {MOST_VALUES}"
    characters = sum(len(value) for value in values if isinstance(value, str))
    if len(values) > UNCOUNTED_VALUES and characters > MOST_CHARACTERS:
        yield "", f"enum values have more than {MOST_CHARACTERS} characters"
    if _depth(schema, schema, {}) > DEEPEST:
        yield "", f"schema depth exceeds maximum limit of {DEEPEST}"


def _nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for _, inner in _inner(node, root)]


def _depth(node: dict[str, Any], root: dict[str, Any], known: dict[str, int]) -> int:
    """Steps into properties, items and additionalProperties; a reference is as deep as what it names, also
    where it stands inside of that. `known`: of definitions, in which one back to them adds nothing."""
    deepest = 0
    if "$ref" in node and node["$ref"] != "#":
        name = node["$ref"].removeprefix("#/$defs/")
        if name not in known:
            known[name] = 0
            known[name] = _depth(root["$defs"][name], root, known)
        deepest = known[name]
    for name, inner in _inner(node, root):
        step = 0 if name.startswith(("anyOf", "$defs")) else 1
        deepest = max(deepest, step + _depth(inner, root, known))
    return deepest


def _inner(node: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for group in ("properties", "$defs"):
        if group in node and isinstance(node[group], dict):
            yield from ((f"{group}.{name}", schema) for name, schema in node[group].items())
    if "items" in node:
        yield "items", node["items"]
    if node.get("additionalProperties") not in (None, True, False, {}):
        yield "additionalProperties", node["additionalProperties"]
    if isinstance(node.get("anyOf"), list):
        yield from ((f"anyOf{{{at}}}", schema) for at, schema in enumerate(node["anyOf"]))


def _reference(
    node: dict[str, Any], own: set[str], root: dict[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    reference = node["$ref"]
    if own - {"$ref", "description"}:
        yield path, "when using $ref, type should be defined in the referenced schema"
    if reference == "#":
        return
    if not str(reference).startswith("#/$defs/"):
        yield f"{path}.$ref", "references must start with #/$defs/"
        return
    name = reference.removeprefix("#/$defs/")
    target = root.get("$defs", {}).get(name)
    if not name or "/" in name or target is None:
        yield f"{path}.$ref", f"invalid $ref path: {reference}"
    elif "description" in node and "description" in target:
        yield path, "conflicting keywords found after $ref expansion: description"


def _union(node: dict[str, Any], own: set[str], path: str) -> Iterator[tuple[str, str]]:
    if own - {"anyOf", "description"}:
        yield path, "when using anyOf, type should be defined in anyOf items instead of the parent schema"
    if not isinstance(node["anyOf"], list) or not 1 <= len(node["anyOf"]) <= 100:
        yield f"{path}.anyOf", "anyOf must have 1-100 items"


def _typed(node: dict[str, Any], own: set[str], path: str) -> Iterator[tuple[str, str]]:
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in BESIDE:
        yield path, "type is not defined" if kind is None else "invalid type"
        return
    if unknown := own - BESIDE[kind]:
        yield path, f"unsupported keywords: {', '.join(sorted(unknown))}"
    properties = node.get("properties", {})
    for name in RESERVED:
        if name in properties:
            yield f"{path}.properties", f"property name {name} is reserved"
    for name in node.get("required", ()):
        if name not in properties:
            yield f"{path}.required", f"required property '{name}' is not defined in properties"
    if len(set(node.get("required", ()))) < len(node.get("required", ())):
        yield f"{path}.required", "duplicate items in required array"
    values = [*node.get("enum", ()), *([node["default"]] if "default" in node else ())]
    if not all(type(value) in _PYTHON.get(kind, ()) for value in values):
        yield path, f"enum or default does not match {kind}"
    if "enum" in node and (not node["enum"] or len(node["enum"]) > 500):
        yield f"{path}.enum", "enum array must have 1-500 items"
    if node.get("items", True) == {}:
        yield f"{path}.items", "items must not be empty"
    for low, high in _LIMITS:
        if low != "minimum" and (node.get(low, 0) < 0 or node.get(high, 0) < 0):
            yield path, f"{low} must be non-negative"


def _ends(node: dict[str, Any], root: dict[str, Any], seen: tuple[str, ...]) -> bool:
    if "$ref" in node:
        name = node["$ref"]
        target = root if name == "#" else root["$defs"][name.removeprefix("#/$defs/")]
        return name not in seen and _ends(target, root, (*seen, name))
    if "anyOf" in node:
        return any(_ends(branch, root, seen) for branch in node["anyOf"])
    if node.get("minItems") and "items" in node:
        return _ends(node["items"], root, seen)
    return all(_ends(node["properties"][name], root, seen) for name in node.get("required", ()))
