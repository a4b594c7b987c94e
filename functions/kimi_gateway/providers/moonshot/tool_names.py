"""Renames tools whose names the vendor refuses, on the way upstream and back."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Mapping
from typing import Any

from kimi_gateway.catalog.models import TOOL_NAME

_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_READABLE = 100  # characters of the client's name that remain
_DIGITS = 12
_UNREADABLE = "tool"  # instead of a name without readable characters


class Names:
    """One sent name for each name, the same in every request of a conversation, so that the vendor's cache
    stays valid. `taken` names are not given to other tools; `kept` names are never changed."""

    def __init__(self, taken: Collection[str] = (), kept: Collection[str] = ()) -> None:
        self._taken = set(taken)
        self._kept = kept
        self._sent: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if TOOL_NAME.fullmatch(name) or name in self._kept:
            return name
        if name not in self._sent:
            self._sent[name] = self._new(name)
        return self._sent[name]

    def _new(self, name: str) -> str:
        plain = _ODD.sub("_", name[:_READABLE])
        if not plain.strip("_-"):
            plain = _UNREADABLE
        elif not TOOL_NAME.fullmatch(plain[0]):
            plain = f"_{plain}"
        whole = name.encode("utf-8", "surrogatepass")
        # Each number gives one name, so this ends at the latest after as many numbers as there are taken
        # names.
        for number in itertools.count():
            salt = f"{number}:".encode() if number else b""
            sent = f"{plain}_{hashlib.sha256(salt + whole).hexdigest()[:_DIGITS]}"
            if sent not in self._taken:
                break
        self._taken.add(sent)
        return sent

    @property
    def originals(self) -> dict[str, str]:
        """The client's names by the sent names; empty if nothing was renamed."""
        return {sent: name for name, sent in self._sent.items()}


def odd(message: Mapping[str, Any]) -> bool:
    """Whether the message has a tool name that the vendor refuses."""
    if calls := message.get("tool_calls"):
        return not all(map(_fine, calls))
    return message["role"] == "tool" and not TOOL_NAME.fullmatch(message.get("name") or "_")


def _fine(call: Mapping[str, Any]) -> bool:
    function = call.get("function")
    name = function.get("name") if type(function) is dict else None
    return type(name) is not str or TOOL_NAME.fullmatch(name) is not None


def in_message(message: dict[str, Any], names: Names) -> dict[str, Any]:
    if not odd(message):
        return message
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [renamed(call, names) for call in calls]}
    return {**message, "name": names(message["name"])}


def renamed(part: dict[str, Any], names: Names) -> dict[str, Any]:
    """Rename a tool, a tool choice or a tool call; the vendor's own functions (`$web_search`) stay."""
    function = part.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or part.get("type") == "builtin_function" or names(name) == name:
        return part
    return {**part, "function": {**function, "name": names(name)}}  # type: ignore[dict-item]
