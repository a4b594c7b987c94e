"""A JSON Schema said in the keywords that the vendor takes; what becomes of each: catalog/mfjs.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

from kimi_gateway.catalog.mfjs import BESIDE, KEYWORDS
from kimi_gateway.dialects.fields import fail
from kimi_gateway.dialects.openai import schema_parts as parts
from kimi_gateway.dialects.openai.schema_merge import (
    Clean,
    Schema,
    any_will_do,
    bare,
    both,
    described,
    spelt,
    united,
)

MOST_STEPS = 20_000  # for one schema; the vendor takes 3,000 properties
MOST_LOOKS = 300_000  # at parts, to see that a document can end
LARGEST = 50_000  # parts, once what is shared is written out
ENDLESS = "has a $ref that leads back to itself without an end"
Path = tuple[str, ...]


class Cleaner:
    """For one schema; places in it begin with a dot."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.opening: set[str] = set()
        self._steps = self._looks = 0
        self._names: dict[str, str] = {}  # of definitions, by pointer
        self._behind: dict[str, tuple[Path, Any]] = {}  # what was found there, by name
        self._done: dict[str, Clean] = {}
        self._busy: set[str] = set()

    def cleaned(self) -> Schema:
        """Raises InvalidRequest naming the place of what cannot be said."""
        root = self._as_object(self._node(self._schema, ()))
        definitions: dict[str, Schema] = {}
        for node in self._all(root, definitions):
            name = node.get("$ref", "#").removeprefix("#/$defs/")
            if name != "#" and name not in definitions:
                clean = self._definition(name)
                if clean is None:
                    self._refuse(self._behind[name][0], "nothing can satisfy it")
                definitions[name] = spelt(clean)
        if definitions:
            root = {**root, "$defs": definitions}
        self._check_end(root)
        return root

    def _all(self, root: Schema, definitions: dict[str, Schema]) -> Iterator[Schema]:
        """Each part, those too of the definitions that come in meanwhile."""
        waiting, left, told = [root], LARGEST, 0
        while waiting:
            left -= 1
            if left < 0:
                self._refuse((), "is too large once its references are written out")
            node = waiting.pop()
            yield node
            waiting += [*node.get("anyOf", ()), *node.get("properties", {}).values()]
            waiting += [
                node[name] for name in ("items", "additionalProperties") if type(node.get(name)) is dict
            ]
            waiting += list(definitions.values())[told:]
            told = len(definitions)

    def count(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            self._refuse((), f"takes more than {MOST_STEPS} steps to read")

    def deref(self, schema: Schema) -> Clean:
        seen = set[str]()
        clean: Clean = schema
        while clean is not None and (reference := clean.get("$ref")):
            name = reference.removeprefix("#/$defs/")
            if reference == "#" or name in self._busy or name in seen:
                return {"$ref": reference}
            seen.add(name)
            clean = self._definition(name)
        return clean

    def _refuse(self, path: Path, what: str) -> NoReturn:
        fail("".join(f".{step}" for step in path), what)

    def _as_object(self, root: Clean) -> Schema:
        if root is not None and any_will_do(root):
            text = root.get("description")
            return {"type": "object", "properties": {}} | ({"description": text} if text else {})
        root = both({"type": "object"}, root, self)
        if root is not None and "$ref" in root:
            root = described(self.deref(root), root.get("description"), over=True)
        if root is not None and "anyOf" in root:  # a root must say that it is an object (live, 2026-09-21)
            root = {**root, "type": "object"}
        if root is None or root.get("type") != "object":
            self._refuse(("type",), "must be object, and possible to satisfy")
        return root

    def _node(self, node: Any, path: Path) -> Clean:
        self.count()
        if isinstance(node, bool):
            return {} if node else None
        if not isinstance(node, dict):
            self._refuse(path, "must be a schema: an object, true or false")
        told = [(name, node[name]) for name in node if KEYWORDS.get(name) == "tell"]
        clean = self._own(node, path, told)
        for part in self._others(node, path):
            clean = both(clean, part, self)
        if clean is not None:
            clean = described(clean, parts.description(node, told), over=True)
        if clean is not None and node.get("nullable") is True:
            clean = described(united([bare(clean), {"type": "null"}]), clean.get("description"))
        return clean

    def _others(self, node: Schema, path: Path) -> Iterator[Clean]:
        """What must hold besides the node's own keywords."""
        if "$ref" in node:
            yield self._reference(node["$ref"], path)
        for index, part in enumerate(self._list(node, "allOf", path)):
            yield self._node(part, (*path, "allOf", str(index)))
        if "enum" in node or "const" in node:
            yield parts.enumerated(self._list(node, "enum", path) or [node.get("const")])
        for name in ("anyOf", "oneOf"):
            if branches := self._list(node, name, path):
                yield united(
                    [self._node(branch, (*path, name, str(at))) for at, branch in enumerate(branches)]
                )

    def _list(self, node: Schema, name: str, path: Path) -> list[Any]:
        value = node.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            self._refuse((*path, name), "must be an array with something in it")
        return value

    def _own(self, node: Schema, path: Path, told: parts.Told) -> Clean:
        types = self._types(node, path)
        own = parts.bounds(node, types, told) | self._array(node, path, told)
        possible = self._object(node, own, path)
        alone = node.keys().isdisjoint(("anyOf", "oneOf", "allOf", "$ref", "enum", "const"))
        return parts.typed(own | parts.default(node, types), types, alone, not possible)

    def _types(self, node: Schema, path: Path) -> list[str]:
        value = node.get("type")
        types = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(types, list) or not all(isinstance(name, str) and name in BESIDE for name in types):
            self._refuse((*path, "type"), f"must be one or several of {', '.join(BESIDE)}")
        return list(dict.fromkeys(types))

    def _array(self, node: Schema, path: Path, told: parts.Told) -> Schema:
        items, places = node.get("items"), node.get("prefixItems")
        if isinstance(items, list):
            items, places = node.get("additionalItems"), items
        rest = {} if items is None else self._node(items, (*path, "items"))
        own: Schema = {}
        if isinstance(places, list) and places:
            if rest is None:
                own["maxItems"] = len(places)
            first = [self._node(place, (*path, "prefixItems", str(at))) for at, place in enumerate(places)]
            rest = united([*first, rest])
            told.append(("prefixItems", places))
        elif rest is None:
            own["maxItems"] = 0
        if rest is not None and not any_will_do(rest):
            own["items"] = rest
        return own

    def _object(self, node: Schema, own: Schema, path: Path) -> bool:
        """False where a property must be there and cannot."""
        properties = node.get("properties")
        if properties is not None:
            if not isinstance(properties, dict):
                self._refuse((*path, "properties"), "must be an object")
            clean = {
                name: self._node(schema, (*path, "properties", name)) for name, schema in properties.items()
            }
            own["properties"] = {name: spelt(schema) for name, schema in clean.items() if schema is not None}
        rest = node.get("additionalProperties")
        if rest is not None:
            schema = self._node(rest, (*path, "additionalProperties"))
            own["additionalProperties"] = schema is not None and (any_will_do(schema) or schema)
        required = node.get("required")
        if not isinstance(required, list):
            return True
        if not all(isinstance(name, str) for name in required):
            self._refuse((*path, "required"), "must be an array of names")
        return _require(own, list(dict.fromkeys(required)), properties or {})

    def _reference(self, reference: Any, path: Path) -> Clean:
        here = (*path, "$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            self._refuse(here, "must point into the same schema")
        pointer = unquote(reference[1:])
        if pointer in ("", "/"):
            return {"$ref": "#"}
        if pointer not in self._names:
            steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
            found: Any = self._schema
            for step in steps or [pointer]:
                if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                    found = found[int(step)]
                elif isinstance(found, dict) and step in found:
                    found = found[step]
                else:
                    self._refuse(here, f"{reference} points to nothing")
            self._names[pointer] = name = self._name(steps)
            self._behind[name] = (tuple(steps), found)
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def _name(self, steps: list[str]) -> str:
        """Of a definition; without a slash."""
        plain = steps[1:] if len(steps) == 2 and steps[0] in ("$defs", "definitions") else steps
        name = ".".join(plain).replace("/", "_") or "_"
        while name in self._behind:
            name += "_"
        return name

    def _definition(self, name: str) -> Clean:
        if name not in self._done:
            self._busy.add(name)
            path, found = self._behind[name]
            self._done[name] = _unlooped(self._node(found, path), f"#/$defs/{name}")
            self._busy.discard(name)
        return self._done[name]

    def _check_end(self, root: Schema) -> None:
        """Refuses what only an endless document could satisfy."""
        schemas = {f"#/$defs/{name}": schema for name, schema in root.get("$defs", {}).items()} | {"#": root}
        ending: set[str] = set()
        waiting, before = list(schemas), 0
        while len(waiting) != before:
            before = len(waiting)
            waiting.reverse()  # a chain of them is one round, whichever way it is written
            waiting = [name for name in waiting if not self._found_to_end(name, schemas[name], ending)]
        for name in schemas:
            if name not in ending:
                path, _ = self._behind.get(name.removeprefix("#/$defs/"), ((), None))
                self._refuse(path, ENDLESS)

    def _found_to_end(self, name: str, schema: Schema, ending: set[str]) -> bool:
        if self._ends(schema, ending):
            ending.add(name)
        return name in ending

    def _ends(self, schema: Schema, ending: set[str]) -> bool:
        """Whether a finite document satisfies it, if one does what is named in `ending`."""
        self._looks += 1
        if self._looks > MOST_LOOKS:
            self._refuse((), "has too many references that lead on to others")
        if "$ref" in schema:
            return schema["$ref"] in ending
        if "anyOf" in schema:
            return any(self._ends(branch, ending) for branch in schema["anyOf"])
        if schema.get("type") == "array":
            return not schema.get("minItems") or self._ends(schema.get("items", {}), ending)
        properties = schema.get("properties", {})
        return all(self._ends(properties[name], ending) for name in schema.get("required", ()))


def _unlooped(clean: Clean, reference: str) -> Clean:
    """A union that offers itself once more says nothing by that. One of nothing else stays: it has no end."""
    if clean is None or "anyOf" not in clean:
        return clean
    branches: list[Clean] = [branch for branch in clean["anyOf"] if not _leads_to(branch, reference)]
    if not branches or len(branches) == len(clean["anyOf"]):
        return clean
    return described(united(branches), clean.get("description"), over=True)


def _leads_to(schema: Schema, reference: str) -> bool:
    """And to nothing else."""
    branches = schema.get("anyOf", ())
    return schema.get("$ref") == reference or (
        bool(branches) and all(_leads_to(branch, reference) for branch in branches)
    )


def _require(own: Schema, required: list[str], properties: Schema) -> bool:
    """The vendor wants each of them declared. False where one cannot be."""
    declared = dict(own.get("properties", {}))
    rest = own.get("additionalProperties", True)
    for name in required:
        if name not in declared:
            if rest is False or name in properties:
                return False
            declared[name] = spelt({}) if rest is True else rest
    if required:
        own.update(properties=declared, required=required)
    return True
