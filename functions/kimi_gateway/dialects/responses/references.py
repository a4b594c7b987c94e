"""References in a request: an earlier answer to continue, or single items of answers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio
from kimi_gateway.pivot.fields import fail

LARGEST = 2**20  # bytes; the conversation of a larger request is not kept, because too much would remain
MOST = 2_048  # answers that one request may refer to; a long tool loop names one for each turn
MOST_UNPACKED = (
    4 * 2**20
)  # bytes of everything that one request refers to; the largest window holds about as much
# The ids of this gateway; no others are looked up.
_RESPONSE_ID = re.compile(r"(?:resp_)?([0-9a-f]{1,64})")
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{1,64})_\d{1,6}")
Found = Mapping[str, bytes]
Kept = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier answer: its conversation and its items. `called` are the client's ids of the conversation's
    calls, which has them as the vendor wants them."""

    messages: list[dict[str, Any]] = field(repr=False)
    output: list[dict[str, Any]] = field(repr=False)
    called: list[str] = field(default_factory=list, repr=False)

    def entries(
        self, name: str, response: Mapping[str, Any] | None = None, beside: Sequence[str] = ()
    ) -> dict[str, bytes]:
        """The cache entries to keep. `name` is the common part of the ids. Items have an entry of their own:
        a request may name those of many answers, and each conversation includes everything before it.
        `response` is the answer without its items; `beside` are the names of entries that go with it."""
        asked = {"messages": self.messages, "response": response, "beside": list(beside)}
        if self.called:
            asked["called"] = self.called
        return {_asked(name): _packed(asked), _items(name): _packed(self.output)}


def entries(body: Mapping[str, Any]) -> list[str]:
    """The names of the cache entries that a request needs. Raises InvalidRequest if there are too many."""
    names = {_items(answer) for item in body["input"] if _is_reference(item) and (answer := _answer_of(item))}
    if len(names) > MOST:
        fail("input", f"refers to items of {len(names)} answers; at most {MOST} are allowed")
    if name := _earlier_of(body):
        names |= {_asked(name), _items(name)}
    return sorted(names)


def unpack(found: Found) -> tuple[Kept, int]:
    """The entries, each parsed once, and their unpacked bytes. Raises InvalidRequest if there are too many,
    before they are unpacked."""
    kept, left = {}, MOST_UNPACKED
    for name, packed in found.items():
        coder = zlib.decompressobj()
        text = coder.decompress(packed, left + 1)
        left -= len(text)
        if left < 0:
            where = "input" if name.startswith(_items("")) else "previous_response_id"
            most = f"{MOST_UNPACKED >> 20} MiB of earlier answers"
            fail(where, f"refers to more than {most}; send the needed parts as input")
        kept[name] = jsonio.loads(text)
    return kept, MOST_UNPACKED - left


def resolve(body: Mapping[str, Any], found: Kept) -> tuple[list[Any] | str, Earlier | None]:
    """The complete input, and the answer to continue. Raises InvalidRequest if something has expired."""
    earlier = None
    if "previous_response_id" in body:
        name = _earlier_of(body)
        if not name or not found.keys() >= {_asked(name), _items(name)}:
            fail("previous_response_id", "no such response is kept; send the whole conversation as input")
        asked = found[_asked(name)]
        earlier = Earlier(messages_of(asked), found[_items(name)], called_of(asked))
    given = body["input"]
    if isinstance(given, str) or not any(map(_is_reference, given)):
        return given, earlier
    items = {item["id"]: item for name, kept in found.items() if name.startswith(_items("")) for item in kept}
    _check_once(given)
    return [
        _referred(item, f"input.{index}", items) if _is_reference(item) else item
        for index, item in enumerate(given)
    ], earlier


def without(body: Mapping[str, Any]) -> list[Any]:
    """The input as if all references were resolved, to check its shape: each item keeps its place."""
    given = body["input"]
    said = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    kept = [{"type": "reasoning"} if _is_reference(item) else item for item in said]
    return [*kept, {"type": "message", "role": "user", "content": "-"}]


def _check_once(given: list[Any]) -> None:
    """Raises InvalidRequest if an item is named twice, because a short request must not become a huge one."""
    seen = set[str]()
    for index, item in enumerate(given):
        if not _is_reference(item):
            continue
        id = str(item.get("id"))
        if id in seen:
            fail(f"input.{index}.id", "is named twice")
        seen.add(id)


def _earlier_of(body: Mapping[str, Any]) -> str:
    return name_of(body.get("previous_response_id", ""))


def name_of(response: str) -> str:
    """The common part of the ids of a response with this id; empty if it cannot be one."""
    found = _RESPONSE_ID.fullmatch(response)
    return found[1] if found else ""


def names(name: str) -> tuple[str, str]:
    """The names of a response's entries."""
    return _asked(name), _items(name)


def messages_of(asked: Any) -> list[dict[str, Any]]:
    """The conversation in an entry. Before 2026-11-28 an entry had nothing else."""
    messages: list[dict[str, Any]] = asked if isinstance(asked, list) else asked["messages"]
    return messages


def called_of(asked: Any) -> list[str]:
    """The client's ids of the calls in an entry; those of older releases have none."""
    called: list[str] = asked.get("called", []) if isinstance(asked, dict) else []
    return called


def _asked(name: str) -> str:
    return f"response:{name}"


def _items(name: str) -> str:
    return f"items:{name}"


def _packed(value: Any) -> bytes:
    return zlib.compress(jsonio.dumps(value), 1)


def _is_reference(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    return item.get("type") == "item_reference" or item.keys() == {"id"}


def _answer_of(item: dict[str, Any]) -> str:
    found = _ITEM_ID.fullmatch(str(item.get("id")))
    return found[1] if found else ""


def _referred(item: dict[str, Any], here: str, items: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    id = str(item.get("id"))
    if id in items:
        return items[id]
    if id.startswith("rs_"):
        return {"type": "reasoning"}  # the conversation goes on without it
    fail(f"{here}.id", "no such item is kept; send the item itself")
