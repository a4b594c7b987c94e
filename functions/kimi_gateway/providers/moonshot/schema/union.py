"""Alternatives in a clean schema: as branches, or as one object where branches are not allowed."""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Collection, Iterator
from typing import Any

Schema = dict[str, Any]
Clean = Schema | None
LONGEST_TOLD = 1_200  # characters about the alternatives of one object
MOST_TOLD = 12  # alternatives
# Written out, because the vendor requires a type on each property.
ANYTHING: Schema = {
    "anyOf": [{"type": name} for name in ("string", "number", "boolean", "object", "array", "null")]
}


def any_will_do(schema: Schema) -> bool:
    return schema.keys() <= {"description"} or schema.get("anyOf") == ANYTHING["anyOf"]


def united(branches: list[Clean], count: Callable[[int], None] | None = None) -> Clean:
    """A schema that is satisfied if one branch is. `count` receives the work beyond one step for each
    branch."""
    if len(branches) == 1:
        return {} if branches[0] is not None and any_will_do(branches[0]) else branches[0]
    flat: list[Schema] = []
    enums: dict[str, Schema] = {}
    seen = set[bytes]()
    for branch in branches:
        if branch is None:
            continue
        if any_will_do(branch):
            return {}
        for each in branch["anyOf"] if branch.keys() == {"anyOf"} else (branch,):
            key = marshal.dumps(each, 2)
            if count is not None:
                count(len(key) // 512)
            if key in seen:
                continue
            seen.add(key)
            if each.keys() == {"type", "enum"}:
                if each["type"] in enums:
                    enums[each["type"]]["enum"] += each["enum"]
                    continue
                each = enums[each["type"]] = {**each, "enum": list(each["enum"])}
            flat.append(each)
    for each in enums.values():
        each["enum"] = list(dict.fromkeys(each["enum"]))
    if not flat:
        return None
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def one_object(branches: list[Schema], text: str | None) -> Schema:
    """One object for several branches: all properties, the common required ones, and the alternatives in
    words. A property that only some branches have keeps its schemas if each other branch is distinct: it
    requires something of its own, or has one value of a property that all require."""
    schemas: dict[str, list[Clean]] = {}
    for branch in branches:
        for name, schema in branch.get("properties", {}).items():
            schemas.setdefault(name, []).append(schema)
    merged: Schema = {"type": "object"}
    required = [frozenset(each.get("required", ())) for each in branches]
    shared = required[0].intersection(*required)
    for branch, own in zip(branches, required, strict=True):
        rest = branch.get("additionalProperties", True)
        if rest is not False and not (own - shared or _is_marked(branch, shared)):
            for name in schemas.keys() - branch.get("properties", {}).keys():
                schemas[name].append({} if rest is True else rest)
    if schemas:
        found = {name: united(each) or {} for name, each in schemas.items()}
        merged["properties"] = {
            name: {**ANYTHING, **schema} if schema.keys() <= {"description"} else schema
            for name, schema in found.items()
        }
    if shared:
        merged["required"] = [name for name in branches[0]["required"] if name in shared]
    others = [branch.get("additionalProperties", True) for branch in branches]
    if all(each is False for each in others):
        merged["additionalProperties"] = False
    elif not any(each is True for each in others):
        merged["additionalProperties"] = united([each for each in others if each is not False])
    told = _alternatives(branches)
    if described := " ".join(filter(None, (text, told))):
        merged["description"] = described
    return merged


def _is_marked(branch: Schema, shared: Collection[str]) -> bool:
    return any(len(branch["properties"][name].get("enum", ())) == 1 for name in shared)


def _alternatives(branches: list[Schema]) -> str:
    forms = list(dict.fromkeys(_form(branch) for branch in branches[:MOST_TOLD]))
    if len(forms) < 2:
        return ""
    more = f" (and {len(branches) - MOST_TOLD} more)" if len(branches) > MOST_TOLD else ""
    told = f"(One of these forms: {'; or '.join(forms)}{more}.)"
    return told if len(told) <= LONGEST_TOLD else f"{told[: LONGEST_TOLD - 2]}…)"


def _form(branch: Schema) -> str:
    required = branch.get("required", ())
    words = list(_required(branch, required))
    rest = [name for name in branch.get("properties", {}) if name not in required]
    text = ", ".join(words) or "nothing required"
    if rest:
        text += f", optionally {', '.join(rest)}"
    about = branch.get("description")
    return f"{about[:200]} – {text}" if about else text


def _required(branch: Schema, required: Any) -> Iterator[str]:
    for name in required:
        values = branch["properties"][name].get("enum", ())
        yield f"{name} = {json.dumps(values[0], ensure_ascii=False)}" if len(values) == 1 else name
