"""A strict parser of the part of Mermaid that the pages use: flowcharts, state and entity diagrams. What it
accepts, mermaid 12.3 accepts; what it does not know it refuses, with the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ID = r"[A-Za-z_][A-Za-z_0-9]*"
RESERVED = {"end", "graph", "flowchart", "subgraph", "style", "class", "click", "default", "state", "note"}
_NODE = re.compile(rf'({ID})(?:\["([^"\]\[]+)"\])?')
_STATE = rf"(\[\*\]|{ID})"
_TRANSITION = re.compile(rf"{_STATE} --> {_STATE}(?:: ([^:;\"#]+))?")
_RELATION = re.compile(rf'({ID}) (\|\||\|o|\}}o|\}}\|)--(\|\||o\||o\{{|\|\{{) ({ID}) : (?:({ID})|"([^"]+)")')


class BadPicture(ValueError):
    """The line that cannot be read."""


@dataclass
class Picture:
    """`labels` by node, where a node has one; `edges` with their text, in order."""

    kind: str
    source: str
    labels: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def nodes(self) -> set[str]:
        return set(self.labels) | {end for edge in self.edges for end in edge[:2]}

    def reached(self, start: str) -> set[str]:
        seen, ahead = {start}, [start]
        while ahead:
            here = ahead.pop()
            new = {end for begin, end, _ in self.edges if begin == here} - seen
            seen |= new
            ahead += new
        return seen


def pictures(page: str) -> Iterator[Picture]:
    """Those of a page in Markdown, in order."""
    for block in re.findall(r"^```mermaid\n(.*?)^```$", page, re.M | re.S):
        yield parse(block)


def parse(text: str) -> Picture:
    """Raises BadPicture."""
    head, *lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    readers = {"flowchart TD": _flow, "stateDiagram-v2": _state, "erDiagram": _relation}
    if head not in readers:
        raise BadPicture(head)
    picture = Picture(head.split()[0], text)
    for line in lines:
        readers[head](picture, line)
    return picture


def _flow(picture: Picture, line: str) -> None:
    ends = []
    for part in line.split(" --> "):
        found = _NODE.fullmatch(part)
        if found is None or found[1].lower() in RESERVED:
            raise BadPicture(line)
        name, label = found[1], found[2]
        if label and picture.labels.setdefault(name, label) != label:
            raise BadPicture(f"{line}: {name} has two labels")
        ends.append(name)
    picture.edges += [(begin, end, "") for begin, end in zip(ends, ends[1:], strict=False)]


def _state(picture: Picture, line: str) -> None:
    found = _TRANSITION.fullmatch(line)
    if found is None or {found[1], found[2]} & RESERVED:
        raise BadPicture(line)
    picture.edges.append((found[1], found[2], found[3] or ""))


def _relation(picture: Picture, line: str) -> None:
    found = _RELATION.fullmatch(line)
    if found is None:
        raise BadPicture(line)
    picture.edges.append((found[1], found[4], found[5] or found[6]))
