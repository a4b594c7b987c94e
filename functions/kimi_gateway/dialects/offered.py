"""The tools of a request in the pivot, each with its place in what the client wrote, and those left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.values import sendable

LONGEST_KIND = 64  # of a tool, in a header
MOST_KINDS = 32


@dataclass(slots=True)
class Offered:
    """`placed`: place and tool, in order; of a function's name the newest holds. `left_out`: the kinds that
    nobody here can run, as a client wrote them. `schema`: what the client calls a function's parameters."""

    schema: str = "parameters"
    placed: dict[object, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [tool for _, tool in self.placed.values()]

    def add(self, place: str, tool: dict[str, Any]) -> None:
        # The vendor's own may have any shape, and stand for themselves.
        key: object = tool["function"]["name"] if tool["type"] == "function" else (place,)
        self.placed.pop(key, None)
        self.placed[key] = (place, tool)

    @property
    def ignored(self) -> tuple[str, ...]:
        """What was left out, as a header and the log line tell of it."""
        kinds = dict.fromkeys(
            f"tools.{kind}" if sendable(kind) and len(kind) <= LONGEST_KIND else "tools"
            for kind in self.left_out
        )
        return tuple(kinds)[:MOST_KINDS]

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
