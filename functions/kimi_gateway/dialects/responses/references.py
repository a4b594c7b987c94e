"""What a request names instead of saying it: an earlier answer to go on from, or single items of one."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.net import jsonio
from kimi_gateway.pivot.fields import fail

LARGEST = (
    2**20
)  # bytes of a request whose conversation is worth packing: of a larger one too much would be left
MOST = 2_048  # answers that one request may name: a long tool loop names one for each of its turns
MOST_UNPACKED = 4 * 2**20  # bytes of all that one request refers to; the largest window holds about as much
# The ids that were given out; no others are looked for.
_RESPONSE_ID = re.compile(r"(?:resp_)?([0-9a-f]{1,64})")
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{1,64})_\d{1,6}")
Found = Mapping[str, bytes]
Kept = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Earlier:
    """An answer of before: the conversation that it answered, and the items that it gave."""

    messages: list[dict[str, Any]] = field(repr=False)
    output: list[dict[str, Any]] = field(repr=False)

    def entries(self, name: str) -> dict[str, bytes]:
        """What to keep. `name` is what the answer's id and its items' ids have in common. Items are kept
        apart: a request may name those of many answers, and each conversation holds all before it."""
        return {_asked(name): _packed(self.messages), _items(name): _packed(self.output)}


def entries(body: Mapping[str, Any]) -> list[str]:
    """What has to be recalled for a request. Raises InvalidRequest where that is too much."""
    names = {_items(answer) for item in body["input"] if _is_reference(item) and (answer := _answer_of(item))}
    if len(names) > MOST:
        fail("input", f"refers to items of {len(names)} answers; at most {MOST} are allowed")
    if name := _earlier_of(body):
        names |= {_asked(name), _items(name)}
    return sorted(names)


def unpack(found: Found) -> tuple[Kept, int]:
    """What was recalled, each read once, and its bytes unpacked. Raises InvalidRequest where they are too
    many, before they are there."""
    kept, left = {}, MOST_UNPACKED
    for name, packed in found.items():
        coder = zlib.decompressobj()
        text = coder.decompress(packed, left + 1)
        left -= len(text)
        if left < 0:
            where = "input" if name.startswith(_items("")) else "previous_response_id"
            most = f"{MOST_UNPACKED >> 20} MiB of earlier answers"
            fail(where, f"refers to more than {most}; send as input what is needed of them")
        kept[name] = jsonio.loads(text)
    return kept, MOST_UNPACKED - left


def resolve(body: Mapping[str, Any], found: Kept) -> tuple[list[Any] | str, Earlier | None]:
    """The whole input, and the answer to go on from. Raises InvalidRequest for what is not kept."""
    earlier = None
    if "previous_response_id" in body:
        name = _earlier_of(body)
        if not name or not found.keys() >= {_asked(name), _items(name)}:
            fail("previous_response_id", "no such response is kept; send the whole conversation as input")
        earlier = Earlier(found[_asked(name)], found[_items(name)])
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
    """The input as it would be if what it refers to were there: each item keeps its place."""
    given = body["input"]
    said = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    kept = [{"type": "reasoning"} if _is_reference(item) else item for item in said]
    return [*kept, {"type": "message", "role": "user", "content": "-"}]


def _check_once(given: list[Any]) -> None:
    """A short request must not become a huge one by naming one item over and over."""
    seen = set[str]()
    for index, item in enumerate(given):
        if not _is_reference(item):
            continue
        id = str(item.get("id"))
        if id in seen:
            fail(f"input.{index}.id", "is named twice")
        seen.add(id)


def _earlier_of(body: Mapping[str, Any]) -> str:
    found = _RESPONSE_ID.fullmatch(body.get("previous_response_id", ""))
    return found[1] if found else ""


def _asked(name: str) -> str:
    return f"response:{name}"


def _items(name: str) -> str:
    return f"items:{name}"


def _packed(value: list[dict[str, Any]]) -> bytes:
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
