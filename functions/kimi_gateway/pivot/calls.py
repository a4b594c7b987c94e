"""Normalises the choices of chunks and the fragments of their tool calls, so that every client's accumulator
gives the same result.

Upstreams number calls in several ways, repeat ids and names, or give each fragment its own id. Here calls are
numbered in order (0, 1, …). Id, type and name occur once; the id is the client's unique one. Small defects in
the arguments are repaired.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import call_ids
from kimi_gateway.pivot.call_ids import Randomness
from kimi_gateway.pivot.slips import Mender
from kimi_gateway.pivot.template import TEXTS

Fragment = dict[str, Any]
MOST_CALLS = 4_096  # of one choice
MOST_PARTS = 512  # choices of a chunk, tool calls of a choice
_WORDS = ("role", *TEXTS)  # of a delta


def complete(choice: dict[str, Any]) -> bool:
    """Add a missing index and delta, and take away an empty finish reason; returns whether that changes the
    choice. Raises TypeError or AttributeError if it has members that no client can read."""
    index, reason = choice.get("index", 0), choice.get("finish_reason")
    delta: Any = choice.get("delta")
    if type(index) is not int or not 0 <= index < MOST_PARTS:
        raise TypeError
    changed = delta is None or reason == "" or "index" not in choice
    if changed:
        delta = {} if delta is None else delta
        choice.update(index=index, delta=delta, finish_reason=reason or None)
    if reason is not None and type(reason) is not str:
        raise TypeError
    for name in _WORDS:
        word = delta.get(name)
        if word is not None and type(word) is not str:
            raise TypeError
    calls = delta.get("tool_calls")
    if calls is not None and (type(calls) is not list or len(calls) > MOST_PARTS):
        raise TypeError
    return changed


@dataclass(slots=True)
class _Call:
    place: int
    mender: Mender
    id: str = ""  # the upstream's
    name: str = ""
    told: bool = False  # as nameless


@dataclass(slots=True)
class Calls:
    """The calls of one choice. `free` names functions whose arguments are free text and not repaired."""

    randomness: Randomness
    free: Collection[str] = ()
    _all: list[_Call] = field(default_factory=list)
    _open: dict[object, _Call] = field(default_factory=dict)  # the newest, by the upstream's index
    _last: _Call | None = None

    def __bool__(self) -> bool:
        return bool(self._all)

    def read(self, fragments: list[Any]) -> tuple[list[Fragment], bool]:
        """The normalised fragments, and whether they differ from the upstream's. Raises TypeError or
        AttributeError for invalid fragments."""
        shaped, changed = [], False
        for fragment in fragments:
            made = self._read(fragment)
            changed |= made is not fragment
            shaped.append(made)
        return shaped, changed

    def _read(self, fragment: Fragment) -> Fragment:
        index, id = fragment.get("index"), _text(fragment.get("id"))
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        name, given = _text(function.get("name")), function.get("arguments")
        arguments = _arguments(given)
        call = self._of(index, id, name, arguments)
        if call is None:
            return self._begin(fragment, index, id, name, arguments)
        self._last = call
        mended = call.mender.feed(arguments)
        if not id and not name and mended == given and call.place == index and "type" not in fragment:
            return fragment
        named = "" if call.name else name
        made: Fragment = {"index": call.place}
        if not call.id and (id or named):
            made["id"] = self._client_id(call, id)
        call.name = call.name or name
        made["function"] = {"name": named, "arguments": mended} if named else {"arguments": mended}
        return made

    def ending(self) -> list[Fragment]:
        """Fragments for calls that never got an id or a name, at the end of the choice: SDKs fail without."""
        told = []
        for call in self._all:
            if call.id and call.name or call.told:
                continue
            made: Fragment = {"index": call.place, "function": {"arguments": ""}}
            if not call.id:
                made["id"] = self._client_id(call, "")
            if not call.name:
                made["function"]["name"] = ""
            call.told = True
            told.append(made)
        return told

    def _of(self, index: Any, id: str, name: str, arguments: str) -> _Call | None:
        """The call that a fragment belongs to, None if it begins one. A fragment with a name begins a new
        call at the index of a named one, unless it repeats that call's id, or has none, while the call's
        arguments are incomplete."""
        call = self._last if index is None else self._open.get(index)
        if call is not None and name and call.name:
            over = call.mender.whole and arguments.strip()
            other = id != call.id if id else index is None and name != call.name
            if over or other:
                return None
        return call

    def _begin(self, fragment: Fragment, index: Any, id: str, name: str, arguments: str) -> Fragment:
        if len(self._all) >= MOST_CALLS:
            raise TypeError("more calls than any answer has")
        call = _Call(len(self._all), Mender(name in self.free), name=name)
        self._all.append(call)
        self._last = call
        self._open[call.place if index is None else index] = call
        made: Fragment = {"index": call.place}
        if id or name:
            made["id"] = self._client_id(call, id)
        function = fragment.get("function")
        told: Fragment = {"name": name} if name else {}
        if isinstance(function, dict):
            told |= {key: value for key, value in function.items() if value is not None and key != "name"}
        told["arguments"] = call.mender.feed(arguments)
        made |= {"type": _text(fragment.get("type")) or "function", "function": told}
        return {**made, **fragment, **made}

    def _client_id(self, call: _Call, id: str) -> str:
        """The client's id; a call without one is named after its place."""
        call.id = id or f"call_{call.place}"
        return call_ids.marked(call.id, self.randomness)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    """The arguments as text: some deployments send an object, or null."""
    if isinstance(value, str):
        return value
    return "" if value is None else jsonio.dumps(value).decode()
