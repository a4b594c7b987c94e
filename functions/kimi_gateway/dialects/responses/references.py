"""What a request names instead of saying it: an earlier answer to go on from, or single items of one."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.dialects.fields import fail
from kimi_gateway.net import jsonio

_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]+)_(\d{1,6})")
_RESPONSE = "resp_"


@dataclass(frozen=True, slots=True)
class Earlier:
    """An answer of before: the conversation that it answered, and the items that it gave."""

    messages: list[dict[str, Any]] = field(repr=False)
    output: list[dict[str, Any]] = field(repr=False)


def entry(name: str) -> str:
    """Under which an answer is kept; `name` is what its id and its items' ids have in common."""
    return f"response:{name}"


def entries(body: Mapping[str, Any]) -> list[str]:
    """What has to be recalled for a request."""
    names = {_answer_of(item) for item in body["input"] if _is_reference(item)}
    if "previous_response_id" in body:
        names.add(body["previous_response_id"].removeprefix(_RESPONSE))
    return [entry(name) for name in sorted(names - {""})]


def written(earlier: Earlier) -> bytes:
    return zlib.compress(jsonio.dumps({"messages": earlier.messages, "output": earlier.output}), 1)


def resolve(body: Mapping[str, Any], found: Mapping[str, bytes]) -> tuple[list[Any] | str, Earlier | None]:
    """The whole input, and the answer to go on from. Raises InvalidRequest for what is not kept."""
    kept = {name: Earlier(**jsonio.loads(zlib.decompress(value))) for name, value in found.items()}
    earlier = None
    if "previous_response_id" in body:
        earlier = kept.get(entry(body["previous_response_id"].removeprefix(_RESPONSE)))
        if earlier is None:
            fail("previous_response_id", "no such response is kept; send the whole conversation as input")
    given = body["input"]
    if isinstance(given, str) or not any(map(_is_reference, given)):
        return given, earlier
    return [
        _referred(item, f"input.{index}", kept) if _is_reference(item) else item
        for index, item in enumerate(given)
    ], earlier


def _is_reference(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    return item.get("type") == "item_reference" or item.keys() == {"id"}


def _answer_of(item: dict[str, Any]) -> str:
    found = _ITEM_ID.fullmatch(str(item.get("id")))
    return found[1] if found else ""


def _referred(item: dict[str, Any], here: str, kept: Mapping[str, Earlier]) -> dict[str, Any]:
    earlier = kept.get(entry(_answer_of(item)))
    for one in earlier.output if earlier else ():
        if one["id"] == item["id"]:
            return one
    if str(item.get("id")).startswith("rs_"):
        return {"type": "reasoning"}  # the conversation goes on without it
    fail(f"{here}.id", "no such item is kept; send the item itself")
