"""The reasoning before tool calls: collected from answers, restored where a client dropped it.

A call is recognised by its id, its arguments and its place (pivot/call_ids.py).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import Replay
from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot import call_ids
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.providers.provider import Entries

PLACEHOLDER = " "  # K2.6 requires a text there while it thinks; any text will do (docs/upstream.md)
LONGEST = 1_000_000  # characters of one answer's reasoning; the longest output of K3 has half as many
# Messages that get their reasoning back: all of the first 1,999, then at least the last 1,000. The border
# moves once in 1,000, because each move changes the prefix that the vendor has cached.
STEP = 1_000
PAGE = 50  # messages whose reasoning is stored together in long histories; a divisor of STEP
LARGEST_PAGE = 4_000_000  # characters
MOST_CALLS = 8  # of one message by which its reasoning is looked up
Message = Mapping[str, Any]


@dataclass(slots=True)
class _Choice:
    reasoning: list[str] = field(default_factory=list)
    arguments: dict[int, list[str]] = field(default_factory=dict)  # of each call, by its index
    ids: dict[int, str] = field(default_factory=dict)


class ReasoningCollector:
    """Collects reasoning from an answer's chunks; `messages` are the request's."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._choices: dict[int, _Choice] = {}

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            for piece in chunk.body["choices"]:
                delta = piece.get("delta")
                if delta and ("reasoning_content" in delta or "tool_calls" in delta):
                    self._add(self._choices.setdefault(piece.get("index", 0), _Choice()), delta)

    def _add(self, choice: _Choice, delta: Mapping[str, Any]) -> None:
        reasoning = delta.get("reasoning_content")
        if isinstance(reasoning, str) and reasoning:
            choice.reasoning.append(reasoning)
        for call in delta.get("tool_calls") or ():
            index, id = call.get("index", 0), call.get("id")
            if isinstance(id, str) and id:
                choice.ids.setdefault(index, call_ids.vendors(id))
            arguments = (call.get("function") or {}).get("arguments")
            if isinstance(arguments, str):
                choice.arguments.setdefault(index, []).append(arguments)

    def kept(self) -> dict[str, bytes]:
        """The cache entries to keep: one for each message with calls, named after its first call."""
        called = [choice for choice in self._choices.values() if choice.ids and choice.reasoning]
        if not called:
            return {}
        place = call_ids.next_place(self._messages)
        found: dict[str, bytes] = {}
        for choice in called:
            index, id = next(iter(choice.ids.items()))
            reasoning = "".join(choice.reasoning)
            if len(reasoning) <= LONGEST:
                name = _name(place, id, "".join(choice.arguments.get(index, ())))
                found.setdefault(name, _packed(reasoning))
        return found


@dataclass(frozen=True, slots=True)
class MissingReasoning:
    """A message at `index` that lost its reasoning, and the possible names of its entry."""

    index: int
    calls: tuple[str, ...]


def lacking(messages: Sequence[Message]) -> list[MissingReasoning]:
    """The assistant's messages with tool calls and without reasoning; blanks count as missing."""
    if not any(map(lacks, messages)):
        return []
    found = []
    for index, (message, place) in enumerate(call_ids.places(messages)):
        if message is not None and lacks(message):
            calls = (call for call in message["tool_calls"] if isinstance(call.get("id"), str))
            named = [
                _name(place, call["id"], (call.get("function") or {}).get("arguments")) for call in calls
            ]
            found.append(MissingReasoning(index, tuple(dict.fromkeys(named))[:MOST_CALLS]))
    return found


def lacks(message: Message) -> bool:
    if not message.get("tool_calls") or message["role"] != "assistant":
        return False
    reasoning = message.get("reasoning_content")
    return not reasoning or reasoning.isspace()


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages that lost their reasoning. The name is a digest of their calls, so it needs no
    other state, and only the same conversation finds it."""

    name: str
    members: Sequence[MissingReasoning]


def pages(missing: Sequence[MissingReasoning]) -> tuple[list[Page], Sequence[MissingReasoning]]:
    """The messages that get their reasoning back: complete pages from the border on, and the rest."""
    start = max(0, len(missing) // STEP - 1) * STEP
    end = len(missing) // PAGE * PAGE
    whole = [missing[at : at + PAGE] for at in range(start, end, PAGE)]
    return [Page(_page_name(members), members) for members in whole], missing[end:]


def _page_name(members: Sequence[MissingReasoning]) -> str:
    told = "\n".join(name for each in members for name in (*each.calls, ""))
    return "thoughts-" + hashlib.sha256(told.encode()).hexdigest()[:40]


def names(missing: Sequence[MissingReasoning]) -> list[str]:
    """The possible names of these messages' entries."""
    return [name for each in missing for name in each.calls]


def known_reasoning(missing: Sequence[MissingReasoning], known: Mapping[str, bytes]) -> dict[int, str]:
    """The reasoning that was found, by the message's index."""
    found = ((each.index, _reasoning_of(each, known)) for each in missing)
    return {index: reasoning for index, reasoning in found if reasoning is not None}


def page_of(page: Page, found: Mapping[int, str]) -> bytes:
    """The page's entry, including gaps: reasoning that is missing now stays missing. Empty if it is too
    large."""
    told = [found.get(each.index) for each in page.members]
    if sum(len(reasoning or "") for reasoning in told) > LARGEST_PAGE:
        return b""
    return _packed(json.dumps(told))


def read_page(page: Page, entry: bytes) -> dict[int, str]:
    told = json.loads(_unpacked(entry, 8 * LARGEST_PAGE) or "[]")
    return {each.index: reasoning for each, reasoning in zip(page.members, told, strict=False) if reasoning}


def restore(
    body: dict[str, Any], missing: Sequence[MissingReasoning], found: Mapping[int, str], replay: Replay
) -> int:
    """Restore each message's reasoning byte for byte, or a placeholder if it is required and unknown. Returns
    the number of added characters."""
    messages = list(body["messages"])
    added = 0
    for each in missing:
        message = messages[each.index]
        reasoning = found.get(each.index)
        if reasoning is None and replay == "required":
            reasoning = message.get("reasoning_content") or PLACEHOLDER
        if reasoning is not None and reasoning != message.get("reasoning_content"):
            messages[each.index] = {**message, "reasoning_content": reasoning}
            added += len(reasoning)
    if added:
        body["messages"] = messages
    return added


@dataclass(slots=True)
class Lost:
    """`missing` are the messages of `body` that lost their reasoning."""

    body: dict[str, Any] = field(repr=False)
    missing: Sequence[MissingReasoning] = field(repr=False)
    replay: Replay
    _found: dict[int, str] = field(default_factory=dict, repr=False)

    async def look_up(self, entries: Entries) -> None:
        """Look up the reasoning. A long history is read page by page; a missing page is written from its
        entries."""
        whole, rest = pages(self.missing)
        wanted = [*(page.name for page in whole), *names(rest)]
        known = await entries.look(wanted) if wanted else {}
        found = known_reasoning(rest, known)
        unwritten = [page for page in whole if page.name not in known]
        for page in whole:
            if page.name in known:
                found |= read_page(page, known[page.name])
        if unwritten:
            members = [each for page in unwritten for each in page.members]
            found |= known_reasoning(members, await entries.look(names(members)))
            written = {page.name: page_of(page, found) for page in unwritten}
            await entries.keep({name: entry for name, entry in written.items() if entry})
        self._found = found

    def restore(self) -> int:
        return restore(self.body, self.missing, self._found, self.replay)


def _reasoning_of(missing: MissingReasoning, known: Mapping[str, bytes]) -> str | None:
    return next((reasoning for name in missing.calls if (reasoning := _unpacked(known.get(name, b"")))), None)


def _packed(reasoning: str) -> bytes:
    return zlib.compress(reasoning.encode("utf-8", "surrogatepass"), 1)


def _unpacked(entry: bytes, most: int = 4 * LONGEST) -> str:
    """Empty string if the data is corrupt or unpacks to more than `most` bytes."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(entry, most).decode("utf-8", "surrogatepass")
    except (zlib.error, ValueError):
        return ""
    return text if reader.eof else ""


def _name(place: bytes, id: str, arguments: Any) -> str:
    return call_ids.entry("thought-", place, id, arguments)
