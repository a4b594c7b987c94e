"""The tools of a request in the pivot, each with its place in what the client wrote, and those left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ToolSet:
    """`placed`: place and tool in order, by a function's name. `left_out`: the kinds that nobody here can
    run, as a client wrote them. `schema`: what the client calls a function's parameters."""

    schema: str = "parameters"
    placed: dict[object, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [tool for _, tool in self.placed.values()]

    def add(self, place: str, tool: dict[str, Any], name: str | None = None) -> None:
        """A function's `name` stands once, where it came last; what has none stands by its place."""
        key: object = (place,) if name is None else name
        self.placed.pop(key, None)
        self.placed[key] = (place, tool)

    @property
    def ignored(self) -> tuple[str, ...]:
        """What was left out, in the client's words (pivot/ignored.py makes them fit for a header)."""
        return tuple(dict.fromkeys(f"tools.{kind}" for kind in self.left_out))

    @property
    def places(self) -> dict[str, str]:
        """Where the client wrote what stands where in `tools`, for `fields.renamed`."""
        places = {}
        for index, (place, tool) in enumerate(self.placed.values()):
            places[f"tools.{index}"] = place
            if tool["type"] == "function":
                places[f"tools.{index}.function"] = place
                places[f"tools.{index}.function.parameters"] = f"{place}.{self.schema}"
        return places
