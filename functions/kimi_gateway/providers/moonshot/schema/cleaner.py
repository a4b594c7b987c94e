"""Translates a JSON Schema to the vendor's keywords; mfjs.py has the treatment of each keyword."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote

from kimi_gateway.pivot.fields import fail
from kimi_gateway.providers.moonshot.schema import parts
from kimi_gateway.providers.moonshot.schema.ends import TooManyLooks, first_endless
from kimi_gateway.providers.moonshot.schema.merge import bare, both, described, spelt
from kimi_gateway.providers.moonshot.schema.mfjs import BESIDE, KEYWORDS, RESERVED
from kimi_gateway.providers.moonshot.schema.union import Clean, Schema, any_will_do, one_object, united

MOST_STEPS = (
    3_500  # for one schema: 1 for a plain part, 2 for others, and for each merge, comparison and copy
)
LARGEST = 3_000  # parts after references are written out; a hundred characters count as one
ENDLESS = "has a $ref that leads back to itself without an end"
Path = tuple[str, ...]


class Cleaner:
    """Cleans one schema; paths in it begin with a dot. `lenient`: invalid schemas and broken references
    become unconstrained. `loose`: so do required parts that are impossible. `loosened` says whether that
    happened, `reserved` whether a property has a reserved name."""

    def __init__(
        self, schema: Schema, lenient: bool = False, loose: bool = False, most: int = MOST_STEPS
    ) -> None:
        self._schema = schema
        self._lenient, self._loose, self._most = lenient, loose, most
        self.loosened = self.reserved = False
        self.opening: set[str] = set()
        self.steps = 0
        self._names: dict[str, str] = {}  # of definitions, by pointer
        self._behind: dict[str, tuple[Path, Any]] = {}  # the schemas of these definitions, by name
        self._done: dict[str, Clean] = {}
        self._busy: set[str] = set()

    def cleaned(self) -> Schema:
        """The cleaned schema. Raises InvalidRequest with the place of an untranslatable part."""
        root = self._as_object(self._node(self._schema, ()))
        definitions: dict[str, Schema] = {}
        for node in self._all(root, definitions):
            name = node.get("$ref", "#").removeprefix("#/$defs/")
            if name != "#" and name not in definitions:
                clean = self._definition(name)
                if clean is None:
                    clean = self._fault(self._behind[name][0], "nothing can satisfy it")
                definitions[name] = spelt(clean)
        if definitions:
            root = {**root, "$defs": definitions}
        self._check_end(root)
        return root

    def _all(self, root: Schema, definitions: dict[str, Schema]) -> Iterator[Schema]:
        """All parts, including those of definitions that are added meanwhile."""
        waiting, left, told = [root], LARGEST, 0
        while waiting:
            node = waiting.pop()
            left -= 1 + _weight(node)
            if left < 0:
                self._refuse((), "is too large once its references are written out")
            yield node
            self.reserved |= not RESERVED.isdisjoint(node.get("properties", ()))
            waiting += [*node.get("anyOf", ()), *node.get("properties", {}).values()]
            waiting += [
                node[name] for name in ("items", "additionalProperties") if type(node.get(name)) is dict
            ]
            waiting += list(definitions.values())[told:]
            told = len(definitions)

    def count(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > self._most:
            self._refuse((), f"takes more than {self._most} steps to read")

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

    def _fault(self, path: Path, what: str) -> Schema:
        if not self._lenient:
            self._refuse(path, what)
        self.loosened = True
        return {}

    def _as_object(self, root: Clean) -> Schema:
        if root is not None and any_will_do(root):
            text = root.get("description")
            return {"type": "object", "properties": {}} | ({"description": text} if text else {})
        root = both({"type": "object"}, root, self)
        if root is not None and "$ref" in root:
            root = described(self.deref(root), root.get("description"), over=True)
        if root is not None and "anyOf" in root:  # a root must say that it is an object (live, 2026-09-21)
            branches = [self.deref(branch) for branch in root["anyOf"]]
            objects = [each for each in branches if each is not None and each.get("type") == "object"]
            root = one_object(objects, root.get("description")) if objects else None
        if root is None or root.get("type") != "object":
            self._refuse(("type",), "must be object, and possible to satisfy")
        return root

    def _node(self, node: Any, path: Path) -> Clean:
        self.count()
        if isinstance(node, bool):
            return {} if node else None
        if not isinstance(node, dict):
            return self._fault(path, "must be a schema: an object, true or false")
        if node.keys() <= _PLAIN and node.get("type") in _SCALARS:
            return {name: node[name] for name in node if name in _KEPT and isinstance(node[name], str)}
        self.count()
        told = [(name, node[name]) for name in node if KEYWORDS.get(name) == "tell"]
        clean = self._own(node, path, told)
        words = [parts.words(told, self.count)]
        for part in self._others(node, path):
            clean = both(clean, part, self)
        if "allOf" in node and clean is not None:
            words += parts.told_inside(node["allOf"], self.count)
        if clean is not None:
            clean = described(clean, parts.description(node, words, clean), over=True)
        if clean is not None and node.get("nullable") is True:
            clean = described(united([bare(clean), {"type": "null"}]), clean.get("description"))
        return clean

    def _others(self, node: Schema, path: Path) -> Iterator[Clean]:
        """Constraints besides the node's own keywords."""
        if "$ref" in node:
            yield self._reference(node["$ref"], path)
        for index, part in enumerate(self._list(node, "allOf", path)):
            yield self._node(part, (*path, "allOf", str(index)))
        if values := self._values(node, path):
            yield parts.enumerated(values, self.count)
        for name in ("anyOf", "oneOf"):
            if branches := self._list(node, name, path):
                found = [self._node(branch, (*path, name, str(at))) for at, branch in enumerate(branches)]
                yield united(found, self.count)

    def _list(self, node: Schema, name: str, path: Path) -> list[Any]:
        value = node.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            self._fault((*path, name), "must be an array with something in it")
            return []
        if name == "enum":
            self.count(len(value) // 16)
        return value

    def _values(self, node: Schema, path: Path) -> list[Any]:
        return self._list(node, "enum", path) or ([node["const"]] if "const" in node else [])

    def _own(self, node: Schema, path: Path, told: parts.Told) -> Clean:
        types = self._types(node, path)
        own = parts.bounds(node, types, told) | self._array(node, path, told)
        possible = self._object(node, own, path)
        alone = node.keys().isdisjoint(("anyOf", "oneOf", "allOf", "$ref", "enum", "const"))
        return parts.typed(own | parts.default(node, types), types, alone, not possible)

    def _types(self, node: Schema, path: Path) -> list[str]:
        value = node.get("type")
        named = [] if value is None else [value] if isinstance(value, str) else value
        known = (
            [name for name in named if isinstance(name, str) and name in BESIDE] if _is_list(named) else []
        )
        if not _is_list(named) or len(known) < len(named):
            self._fault((*path, "type"), f"must be one or several of {', '.join(BESIDE)}")
        types = list(dict.fromkeys(known))
        if types and (values := self._values(node, path)) and not parts.any_fits(values, types):
            return []  # the values win: a type beside them that none has is a mistake (seen in Xcode's tools)
        return types

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
            rest = united([*first, rest], self.count)
            told.append(("prefixItems", places))
        elif items is False:
            own["maxItems"] = 0
        elif rest is None:  # a contradiction: more likely a mistake than the empty list
            told.append(("items", items))
        if rest is not None and not any_will_do(rest):
            own["items"] = rest
        return own

    def _object(self, node: Schema, own: Schema, path: Path) -> bool:
        """False if a required property is impossible."""
        properties = node.get("properties")
        if properties is not None:
            if not isinstance(properties, dict):
                self._fault((*path, "properties"), "must be an object")
                properties = {}
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
        self.count(len(required) // 16)
        names = [name for name in required if isinstance(name, str)]
        if len(names) < len(required):
            self._fault((*path, "required"), "must be an array of names")
        if _require(own, list(dict.fromkeys(names)), properties or {}):
            return True
        if self._loose:
            self.loosened = True
            own.pop("additionalProperties", None)
            return _require(own, list(dict.fromkeys(names)), {})
        return False

    def _reference(self, reference: Any, path: Path) -> Clean:
        here = (*path, "$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return self._fault(here, "must point into the same schema")
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
                    return self._fault(here, f"{reference} points to nothing")
            self._names[pointer] = name = self._name(steps)
            self._behind[name] = (tuple(steps), found)
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def _name(self, steps: list[str]) -> str:
        """The name of a definition; without a slash."""
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
        """Refuse a schema that only an infinite document could satisfy."""
        schemas = {f"#/$defs/{name}": schema for name, schema in root.get("$defs", {}).items()} | {"#": root}
        try:
            name = first_endless(schemas)
        except TooManyLooks:
            self._refuse((), "has too long a chain of references")
        if name is not None:
            path, _ = self._behind.get(name.removeprefix("#/$defs/"), ((), None))
            self._refuse(path, ENDLESS)


# Keywords of a part with one type that needs no rewriting.
_SCALARS = ("string", "integer", "number", "boolean", "null")
_KEPT = frozenset(("type", "description"))
_PLAIN = _KEPT | {"title", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _weight(node: Schema) -> int:
    """The weight of the texts in a node."""
    texts: Sequence[Any] = [value for value in node.values() if isinstance(value, str)]
    if values := node.get("enum"):
        texts = [*texts, *(value for value in values if isinstance(value, str))]
    return (sum(map(len, texts)) + 8 * len(node.get("enum", ())) + 8 * len(node.get("required", ()))) // 100


def _unlooped(clean: Clean, reference: str) -> Clean:
    """Remove branches of a union that lead back to the union itself. If there are no others, it stays,
    because it is infinite."""
    if clean is None or "anyOf" not in clean:
        return clean
    branches: list[Clean] = [branch for branch in clean["anyOf"] if not _leads_to(branch, reference)]
    if not branches or len(branches) == len(clean["anyOf"]):
        return clean
    return described(united(branches), clean.get("description"), over=True)


def _leads_to(schema: Schema, reference: str) -> bool:
    """Whether a schema leads to this reference and to nothing else."""
    branches = schema.get("anyOf", ())
    return schema.get("$ref") == reference or (
        bool(branches) and all(_leads_to(branch, reference) for branch in branches)
    )


def _require(own: Schema, required: list[str], properties: Schema) -> bool:
    """Declare each required property, as the vendor requires. False if one is impossible."""
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
