"""The tools of a request in the pivot, each with the client's path, and the dropped ones."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass


@dataclass(slots=True)
class ToolSet:
    """`placed`: path and tool in order, by a function's name. `left_out`: kinds of tools that nobody here can
    run. `schema`: the client's name for a function's parameters."""

    schema: str = "parameters"
    placed: dict[object, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [tool for _, tool in self.placed.values()]

    def add(self, place: str, tool: dict[str, Any], name: str | None = None) -> None:
        """Add a tool. A function's `name` occurs once, in its latest place; tools without a name are keyed by
        path."""
        key: object = (place,) if name is None else name
        self.placed.pop(key, None)
        self.placed[key] = (place, tool)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The client's names of dropped tools (pivot/ignored.py encodes them for a header)."""
        return tuple(dict.fromkeys(f"tools.{kind}" for kind in self.left_out))

    @property
    def places(self) -> dict[str, str]:
        """The client's path for each path in `tools`, for `fields.renamed`."""
        places = {}
        for index, (place, tool) in enumerate(self.placed.values()):
            places[f"tools.{index}"] = place
            if tool["type"] == "function":
                places[f"tools.{index}.function"] = place
                places[f"tools.{index}.function.parameters"] = f"{place}.{self.schema}"
        return places
