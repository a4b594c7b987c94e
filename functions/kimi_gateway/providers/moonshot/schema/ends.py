"""Checks whether some finite document satisfies schemas that refer to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_LOOKS = 5_000  # parts looked at


class TooManyLooks(Exception):
    pass


def first_endless(schemas: Mapping[str, dict[str, Any]]) -> str | None:
    """The name of a schema that only an infinite document could satisfy, None if there is none. `schemas` are
    keyed by reference. Raises TooManyLooks."""
    search = _Search()
    waiting, before = list(schemas), 0
    while len(waiting) != before:
        before = len(waiting)
        waiting.reverse()  # a chain takes one round, whatever its order
        waiting = [name for name in waiting if not search.found(name, schemas[name])]
    return next((name for name in schemas if name not in search.ending), None)


class _Search:
    def __init__(self) -> None:
        self.ending: set[str] = set()
        self._looks = 0

    def found(self, name: str, schema: dict[str, Any]) -> bool:
        if self._ends(schema):
            self.ending.add(name)
        return name in self.ending

    def _ends(self, schema: dict[str, Any]) -> bool:
        """Whether a finite document satisfies the schema, given those in `ending`."""
        self._looks += 1
        if self._looks > MOST_LOOKS:
            raise TooManyLooks
        if "$ref" in schema:
            return schema["$ref"] in self.ending
        if "anyOf" in schema:
            return any(map(self._ends, schema["anyOf"]))
        if schema.get("type") == "array":
            return not schema.get("minItems") or self._ends(schema.get("items", {}))
        properties = schema.get("properties", {})
        return all(self._ends(properties[name]) for name in schema.get("required", ()))
