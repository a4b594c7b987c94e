"""Keeps a clean schema within the vendor's limits for a whole schema (mfjs.py).

Parts beyond the limits become unconstrained, the deepest and largest first, and the description says what was
there. Everything that was allowed stays allowed.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from kimi_gateway.providers.moonshot.schema.mfjs import LIMITS, Limits
from kimi_gateway.providers.moonshot.schema.places import REFERENCE, Place, below, bytes_of, places, shared
from kimi_gateway.providers.moonshot.schema.union import ANYTHING, Schema, one_object

LONGEST_TOLD = 300  # characters about parts that became unconstrained
DESCRIPTIONS = (1_000, 300, 100)  # characters that remain of each description, in turn
Measure = Callable[[Schema], int]
PARTS_PER_STEP = 4  # of a schema that fits; looking at it is cheap
STEPS_PER_PART = 3  # of a schema that does not fit
LEAST_BOUND = 3_000  # bytes that rewriting a small schema may take
_WRAPPING = 30  # bytes around one property that is measured alone


def fitted(root: Schema, original: int, limits: Limits = LIMITS) -> tuple[Schema, bool, int]:
    """The schema, whether a part became unconstrained, and the steps of work. `original` are the bytes of the
    client's schema, because rewriting must not multiply them. Returns the same object if it fits."""
    size, found = bytes_of(root), list(places(root))
    most = max(2 * original, LEAST_BOUND)
    if size <= min(limits.bytes, most) and _within(root, found, limits):
        return root, False, len(found) // PARTS_PER_STEP
    own: Schema = marshal.loads(marshal.dumps(root, 2))  # noqa: S302 (dumped here; no part is shared)
    if size > most or size > limits.bytes:
        own = shared(own)
        _fold(own, most)
        _say_once(own, most)
    opened = _open_branches(own, limits)
    if max(place.level for place in found) > limits.depth or "$defs" in own:
        opened |= _open_depths(own, limits)
    opened |= _loosen_enums(own, limits)
    if len(found) > limits.keys:
        opened |= _open_largest(own, _keys, limits.keys)
        opened |= _drop_properties(own, _keys, limits.keys)
    opened |= _open_largest(own, bytes_of, most)
    if bytes_of(own) > limits.bytes:
        _shorten(own, limits)
        opened = True
    return _pruned(own), opened, len(found) * STEPS_PER_PART


def _within(root: Schema, found: list[Place], limits: Limits) -> bool:
    return (
        max(place.level for place in found) <= limits.depth
        and ("$defs" not in root or _height(root) <= limits.depth)
        and sum(len(place.node.get("properties", ())) for place in found) <= limits.keys
        and all(len(place.node.get("anyOf", ())) <= limits.branches for place in found)
        and not _too_many_values([place.node for place in found if "enum" in place.node], limits)
    )


def _height(root: Schema) -> int:
    """The number of levels, as the vendor counts them: a reference is as deep as what it names, also where it
    stands inside of that and leads back to it."""
    definitions, known = root.get("$defs", {}), dict[str, int]()
    return max(_depth(top, definitions, known) for top in (root, *definitions.values()))


def _depth(node: Schema, definitions: Schema, known: dict[str, int]) -> int:
    """`known`: the depth of definitions, in which a reference back to them adds nothing."""
    name = node.get("$ref", "").removeprefix(REFERENCE)
    depth = 0
    if name in definitions:
        if name not in known:
            known[name] = 0
            known[name] = _depth(definitions[name], definitions, known)
        depth = known[name]
    return max((step + _depth(part, definitions, known) for step, part in below(node)), default=depth)


def _pruned(root: Schema) -> Schema:
    """The schema without unused definitions."""
    definitions = root.pop("$defs", {})
    kept: set[str] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        name = node.get("$ref", "").removeprefix(REFERENCE)
        if name in definitions and name not in kept:
            kept.add(name)
            waiting.append(definitions[name])
        waiting += [part for _, part in below(node)]
    if kept:
        root["$defs"] = {name: part for name, part in definitions.items() if name in kept}
    return root


def _fold(root: Schema, most: int) -> None:
    """Merge alternatives that are all objects into one object with all properties; the largest first."""
    unions = [place.node for place in places(root) if _of_objects(place.node)]
    for node in sorted(unions, key=bytes_of, reverse=True):
        if bytes_of(root) <= most:
            return
        if _of_objects(node):
            _replace(node, one_object(node["anyOf"], node.get("description")))


def _say_once(root: Schema, most: int) -> None:
    """Keep repeated descriptions in the first place only."""
    if bytes_of(root) <= most:
        return
    said = set[str]()
    for place in places(root):
        text = place.node.get("description", "")
        if text in said:
            del place.node["description"]
        elif text:
            said.add(text)


def _of_objects(node: Schema) -> bool:
    branches = node.get("anyOf", ())
    return len(branches) > 1 and all(branch.get("type") == "object" for branch in branches)


def _replace(node: Schema, by: Schema) -> None:
    by = dict(by)
    node.clear()
    node.update(by)


def _open_branches(root: Schema, limits: Limits) -> bool:
    crowded = [place.node for place in places(root) if len(place.node.get("anyOf", ())) > limits.branches]
    for node in crowded:
        if _of_objects(node):
            _replace(node, one_object(node["anyOf"], node.get("description")))
            continue
        kinds = {branch.get("type", "") for branch in node["anyOf"]}
        told = _tell(node, f"one of {len(node['anyOf'])}: {_values(node['anyOf'])}")
        simple = {"type": kinds.pop()} if len(kinds) == 1 and "" not in kinds else ANYTHING
        _replace(node, {**simple, "description": told})
    return bool(crowded)


def _values(branches: list[Schema]) -> str:
    return ", ".join(
        json.dumps(value, ensure_ascii=False)
        for branch in branches[:40]
        for value in branch.get("enum", ())[:1]
    )


def _open_depths(root: Schema, limits: Limits) -> bool:
    """Open parts at the limit first, then above it if chains of references are deeper than they looked."""
    opened = False
    for most in range(limits.depth, 0, -1):
        for place in places(root):
            if place.level >= most and _has_more(place.node):
                _replace(place.node, _opened(place.node))
                opened = True
        if _height(root) <= limits.depth:
            return opened
    return opened


def _has_more(node: Schema) -> bool:
    return bool(node.get("properties") or node.get("items")) or type(node.get("additionalProperties")) is dict


def _opened(node: Schema) -> Schema:
    """The node without the parts below it."""
    group = next(
        name for name in ("properties", "items", "additionalProperties") if type(node.get(name)) is dict
    )
    names = list(node.get("properties", ()))
    told = f"with {', '.join(names)}" if names else f"{group}: {_kind(node[group])}"
    kept: Schema = {name: node[name] for name in ("type", "minItems", "maxItems") if name in node}
    return {**kept, "description": _tell(node, told)}


def _kind(node: Schema) -> str:
    names = list(node.get("properties", ()))
    text: str = node.get("type") or ("alternatives" if "anyOf" in node else "see the description")
    return f"{text} with {', '.join(names)}" if names else text


def _tell(node: Schema, told: str) -> str:
    told = told if len(told) <= LONGEST_TOLD else f"{told[:LONGEST_TOLD]}…"
    return f"{node.get('description', '')} ({told})".strip()


def _too_many_values(nodes: list[Schema], limits: Limits) -> bool:
    values = [value for node in nodes for value in node.get("enum", ())]
    if len(values) <= limits.counted_values:
        return False
    return len(values) > limits.values or sum(len(str(value)) for value in values) > limits.characters


def _loosen_enums(root: Schema, limits: Limits) -> bool:
    """Turn the longest enums into words until the rest is within the limits."""
    enums = [place.node for place in places(root) if "enum" in place.node]
    enums.sort(key=lambda node: len(node["enum"]))
    loosened = False
    while enums and _too_many_values(enums, limits):
        _loosen(enums.pop())
        loosened = True
    return loosened


def _loosen(node: Schema) -> None:
    values = node.pop("enum")
    listed = ", ".join(json.dumps(value, ensure_ascii=False) for value in values[:40])
    node["description"] = _tell(node, f"one of {len(values)}: {listed}")


def _keys(root: Schema) -> int:
    return sum(len(place.node.get("properties", ())) for place in places(root))


def _open_largest(root: Schema, measure: Measure, most: int) -> bool:
    """Open the deepest parts first, and of these the largest, until the schema is small enough."""
    opened = False
    passed: set[int] = set()  # parts that would not become smaller
    while (excess := measure(root) - most) > 0:
        left = [
            place
            for place in places(root)
            if place.level and id(place.node) not in passed and _has_more(place.node)
        ]
        if not left:
            return opened
        deepest = max(place.level for place in left)
        sized = [(measure(place.node), place.node) for place in left if place.level == deepest]
        for size, node in sorted(sized, key=itemgetter(0), reverse=True):
            gain = size - measure(by := _opened(node))
            if gain <= 0:
                passed.add(id(node))
            elif excess > 0:
                _replace(node, by)
                excess -= gain
                opened = True
        _replace(root, _pruned(root))
    return opened


def _shorten(root: Schema, limits: Limits) -> None:
    most = limits.bytes
    _cut_descriptions(root, DESCRIPTIONS[0], most)
    _open_largest(root, bytes_of, most)
    for longest in DESCRIPTIONS[1:]:
        _cut_descriptions(root, longest, most)
    enums = [place.node for place in places(root) if "enum" in place.node]
    enums.sort(key=bytes_of)
    while enums and (excess := bytes_of(root) - most) > 0:
        while enums and excess > 0:
            before = bytes_of(enums[-1])
            _loosen(enums[-1])
            excess -= before - bytes_of(enums.pop())
    _drop_properties(root, bytes_of, most)
    if bytes_of(root) > most:
        _replace(root, {"type": "object", "description": root.get("description", "")[: DESCRIPTIONS[0]]})


def _cut_descriptions(root: Schema, longest: int, most: int) -> None:
    if bytes_of(root) > most:
        for place in places(root):
            text = place.node.get("description", "")
            if len(text) > longest:
                place.node["description"] = f"{text[:longest]}…"


def _drop_properties(root: Schema, measure: Measure, most: int) -> bool:
    """Drop properties of the root, the last ones first and required ones at the end."""
    properties: dict[str, Any] = root.get("properties", {})
    needed = frozenset(root.get("required", ()))
    waiting = sorted(properties, key=lambda name: name not in needed)
    dropped: list[str] = []
    while waiting and (excess := measure(root) - most) > 0:
        while waiting and excess > -LONGEST_TOLD:  # the description of dropped parts needs this much
            name = waiting.pop()
            excess -= measure({"type": "object", "properties": {name: properties.pop(name)}}) - _WRAPPING
            dropped.append(name)
        if needed:
            root["required"] = [name for name in root["required"] if name in properties]
        root.pop("additionalProperties", None)
        root["description"] = root.get("description", "")
        _replace(root, _pruned(root))
    if dropped:
        root["description"] = _tell(root, f"also: {', '.join(reversed(dropped))}")
    return bool(dropped)
