"""Renames properties with names that the vendor reserves, in schemas and calls, and back: `required` becomes
`required_`, and `required_` gets one more `_`, so no two names become the same.

The keys of all objects in a call of such a tool are treated the same at any depth, because a text that comes
in pieces can be read by its strings alone.
"""

from __future__ import annotations

import json
import re

from kimi_gateway.providers.moonshot.schema.mfjs import RESERVED
from kimi_gateway.providers.moonshot.schema.union import Schema

_LONGEST = 160  # characters of a key as JSON that may be reserved; each character may take six
_OWN = re.compile(f"(?:{'|'.join(map(re.escape, sorted(RESERVED)))})_*")
_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)  # the rest of a string, from behind its beginning
_BLANK = re.compile(r"[ \t\r\n]*")


def escaped(name: str) -> str:
    return f"{name}_" if _OWN.fullmatch(name) else name


def restored(name: str) -> str:
    return name[:-1] if name.endswith("_") and _OWN.fullmatch(name) else name


def escaped_properties(node: Schema) -> Schema:
    """A clean schema with its properties under the names that are sent."""
    said = dict(node)
    if "properties" in node:
        said["properties"] = {
            escaped(name): escaped_properties(part) for name, part in node["properties"].items()
        }
    if "required" in node:
        said["required"] = list(map(escaped, node["required"]))
    if "anyOf" in node:
        said["anyOf"] = list(map(escaped_properties, node["anyOf"]))
    if "$defs" in node:
        said["$defs"] = {name: escaped_properties(part) for name, part in node["$defs"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            said[name] = escaped_properties(node[name])
    return said


def escaped_text(arguments: str) -> str:
    """A call's complete arguments, unchanged except for such keys."""
    keys = Keys(back=False)
    return keys.add(arguments) + keys.rest()


class Keys:
    """Renames the keys of a JSON text that comes in pieces. It holds back only the beginning of a string that
    may become such a key."""

    def __init__(self, back: bool = True) -> None:
        self._new = restored if back else escaped
        self._held = ""
        self._inside = False  # inside a string that is not such a key
        self._escape = False  # behind a backslash in it

    def add(self, piece: str) -> str:
        text, at = self._held + piece, 0
        said: list[str] = []
        self._held = ""
        while at < len(text):
            if self._inside:
                at = self._skip(text, at, said)
                continue
            begins = text.find('"', at)
            if begins < 0:
                said.append(text[at:])
                break
            said.append(text[at:begins])
            end = self._string(text, begins, said)
            if end is None:
                self._held = text[begins:]
                break
            at = end
        return "".join(said)

    def rest(self) -> str:
        """The text that was held back, at the end."""
        held, self._held = self._held, ""
        return held

    def _skip(self, text: str, at: int, said: list[str]) -> int:
        """Skip to the end of a string that is not such a key."""
        if self._escape:
            self._escape = False
            said.append(text[at])
            return at + 1
        found = _END.match(text, at)
        if found is not None:
            self._inside = False
            said.append(found.group())
            return found.end()
        rest = text[at:]
        said.append(rest)
        self._escape = (len(rest) - len(rest.rstrip("\\"))) % 2 == 1
        return len(text)

    def _string(self, text: str, begins: int, said: list[str]) -> int | None:
        """The position after a string, or inside one that is not such a key; None if more text is needed."""
        found = _END.match(text, begins + 1, begins + _LONGEST)
        if found is None:
            if len(text) - begins < _LONGEST and _may_be(text[begins + 1 :]):
                return None
            self._inside = True
            said.append('"')
            return begins + 1
        string = text[begins : found.end()]
        name = _read(string)
        if name is not None and (new := self._new(name)) != name:
            behind = _BLANK.match(text, found.end(), found.end() + _LONGEST)
            after = found.end() if behind is None else behind.end()
            if after == len(text) and after - found.end() < _LONGEST:
                return None
            if text[after : after + 1] == ":":
                string = json.dumps(new)
        said.append(string)
        return found.end()


def _may_be(begun: str) -> bool:
    """Whether a string with this beginning may still become such a key."""
    if "\\" in begun:
        return True
    return any(name.startswith(begun) or not begun.removeprefix(name).strip("_") for name in RESERVED)


def _read(string: str) -> str | None:
    try:
        value = json.loads(string)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
