"""Patterns of paths: literal segments, `{name}` for one segment, and `{name+}` at the end for all remaining
ones."""

from __future__ import annotations

import re
from typing import Self

from kimi_gateway.dataclass import dataclass

_PARAMETER = re.compile(r"\{([a-z_]+)(\+?)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern. The kinds of its segments are "" for a literal one, "one" and "rest"."""

    text: str
    segments: tuple[tuple[str, str], ...]  # kind, and the literal text or the parameter's name

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises ValueError if the text is not a pattern."""
        parts = text.split("/")
        segments = tuple(map(_segment, parts[1:]))
        names = [name for kind, name in segments if kind]
        rests = [at for at, (kind, _) in enumerate(segments) if kind == "rest"]
        if parts[0] or len(set(names)) < len(names) or rests not in ([], [len(segments) - 1]):
            raise ValueError(f"not a pattern of paths: {text!r}")
        return cls(text, segments)

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters."""
        return tuple([name for kind, name in self.segments if kind])

    @property
    def shape(self) -> tuple[tuple[str, str], ...]:
        """The form of the pattern without the names of its parameters. Of two patterns that match a path, the
        lower shape is more specific: at the first difference a literal wins over `{name}` over `{name+}`."""
        return tuple([(kind, "" if kind else name) for kind, name in self.segments])

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The parameters in a path that `split` has split; None if it does not match."""
        segments = self.segments
        last = len(segments) - 1
        rest = segments[last][0] == "rest"
        if len(parts) <= last or (len(parts) > last + 1 and not rest):
            return None
        found = {}
        for at, (kind, name) in enumerate(segments):
            part = "/".join(parts[at:]) if kind == "rest" else parts[at]
            if kind:
                if not part:
                    return None
                found[name] = part
            elif part != name:
                return None
        return found


def split(path: str, longest: int) -> list[str]:
    """The segments of a path. Everything beyond the `longest` pattern stays in one piece, so that the work
    does not grow with a hostile path."""
    return path[1:].split("/", longest) if path.startswith("/") else []


def _segment(text: str) -> tuple[str, str]:
    parameter = _PARAMETER.fullmatch(text)
    if parameter is None:
        if "{" in text or "}" in text:
            raise ValueError(f"not a segment of a pattern: {text!r}")
        return "", text
    name, plus = parameter.groups()
    return "rest" if plus else "one", name
