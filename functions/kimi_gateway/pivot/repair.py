"""Repairs histories that the vendor would refuse, because a 400 would end the session.

The vendor refuses an empty text part, a tool result without text, a result without its call, a call without
its result or with messages before it, and a repeated call id (docs/upstream.md). Each rule looks only at a
message and those before it, so the beginning of a history stays the same from request to request. All rules
take linear time.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot import call_ids

Message = dict[str, Any]
Place = tuple[int, int]  # a message, and the number of its call or RESULT

RESULT = -1
NOTHING = "(empty)"  # instead of an empty text, which the vendor refuses
NO_RESULT = "(no result)"
PICTURES = "(see the picture)"
UNREAD = "attachment"  # the type of a place holder for content that must still be read (pivot/placement.py)
MOST_NOTES = 64  # repairs that are reported in a header


@dataclass(slots=True)
class _Turn:
    """The assistant's calls, and the position of their results in the new history."""

    at: int
    results: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    turn: _Turn
    place: Place


class _Notes(list[Place]):
    def add(self, place: Place) -> None:
        if len(self) < MOST_NOTES:
            self.append(place)


def repaired(messages: list[Message], place: Callable[[int, int], str]) -> tuple[list[Message], list[str]]:
    """The repaired history (the same list if nothing was wrong), and the client's names of repaired places.
    `place` returns the client's name for a message's call or for the id of a result."""
    texts = [_with_texts(message) for message in messages]
    kept = [message for message in texts if message is not None]
    same = len(kept) == len(messages) and all(map(operator.is_, kept, messages))
    if not any(map(_of_tools, messages)):
        return (messages if same else kept), []
    notes = _Notes()
    paired = _paired(texts, notes)
    if len(paired) == len(messages) and all(map(operator.is_, paired, messages)):
        paired = messages
    names = [place(*each) for each in notes]
    return paired, list(dict.fromkeys(names))


def _of_tools(message: Message) -> bool:
    return message["role"] == "tool" or "tool_calls" in message


def _with_texts(message: Message) -> Message | None:
    """The message with the vendor's ids and without empty texts; None if nothing is left of it."""
    content, role = message.get("content"), message["role"]
    if content and type(content) is str and not _of_tools(message):
        return message
    if type(content) is list and not all(map(_says, content)):
        content = [part for part in content if _says(part)]
    if role == "tool":
        content = _result(content)
        id = call_ids.vendors(message["tool_call_id"])
        if id != message["tool_call_id"]:
            message = {**message, "tool_call_id": id}
    elif role == "assistant":
        message = _calling(message)
        if not content and not message.get("tool_calls") and not message.get("partial"):
            return None
        content = content or (None if content is None else "")
    elif not content and "tools" not in message:
        if role == "system":
            return None
        content = NOTHING
    elif not content:
        content = message.get("content")
    return message if content is message.get("content") else {**message, "content": content}


def _says(part: Any) -> bool:
    return bool(part.get("type") != "text" or part.get("text") != "")


def _result(content: Any) -> Any:
    if not content:
        return NOTHING
    return with_words(content) if type(content) is list else content


def with_words(parts: list[Any]) -> list[Any]:
    """A tool's result that has a text."""
    if any(part.get("type") in ("text", UNREAD) for part in parts):
        return parts
    return [{"type": "text", "text": PICTURES}, *parts]


def _calling(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        if "tool_calls" not in message:
            return message
        return {name: value for name, value in message.items() if name != "tool_calls"}
    own = [_own_id(call) for call in calls]
    return message if all(map(operator.is_, own, calls)) else {**message, "tool_calls": own}


def _own_id(call: Message) -> Message:
    id = call.get("id")
    own = call_ids.vendors(id) if type(id) is str else id
    return call if own == id else {**call, "id": own}


def _paired(messages: Sequence[Message | None], notes: _Notes) -> list[Message]:
    """Put each result behind its call, and messages in between behind the results."""
    made: list[Message] = []
    turns: list[_Turn] = []
    waiting: dict[str, deque[_Waiting]] = {}
    ids = set[str]()
    for index, message in enumerate(messages):
        if message is None:
            continue
        if message["role"] == "tool":
            _answer(message, index, made, waiting, notes)
            continue
        made.append(message)
        if calls := message.get("tool_calls"):
            turn = _Turn(len(made))
            turns.append(turn)
            fresh: dict[str, deque[_Waiting]] = {}
            for at, call in enumerate(calls):
                if type(id := call.get("id")) is str:
                    if id in ids:
                        notes.add((index, at))
                    ids.add(id)
                    fresh.setdefault(id, deque()).append(_Waiting(turn, (index, at)))
            for id, some in fresh.items():
                _give_up(id, waiting.pop(id, ()), notes)
                waiting[id] = some
    for id, some in waiting.items():
        _give_up(id, some, notes)
    return _woven(made, turns)


def _answer(
    message: Message, index: int, made: list[Message], waiting: dict[str, deque[_Waiting]], notes: _Notes
) -> None:
    calls = waiting.get(message["tool_call_id"])
    if calls:
        calls.popleft().turn.results.append(message)
    else:
        notes.add((index, RESULT))
        made.append(_told(message))


def _give_up(id: str, waiting: Iterable[_Waiting], notes: _Notes) -> None:
    for each in waiting:
        notes.add(each.place)
        each.turn.results.append({"role": "tool", "tool_call_id": id, "content": NO_RESULT})


def _told(message: Message) -> Message:
    """A result without its call, as a message of the user."""
    head = f"[Result of a tool call that is not in this conversation ({message['tool_call_id'][:64]})]"
    content = message["content"]
    if type(content) is str:
        return {"role": "user", "content": f"{head}\n{content}"}
    return {"role": "user", "content": [{"type": "text", "text": head}, *content]}


def _woven(made: list[Message], turns: list[_Turn]) -> list[Message]:
    whole: list[Message] = []
    at = 0
    for turn in turns:
        whole += made[at : turn.at]
        whole += turn.results
        at = turn.at
        if whole[-1]["role"] == "tool" and made[at - 1].get("partial"):
            begun = whole[-1 - len(turn.results)]
            whole[-1 - len(turn.results)] = {key: begun[key] for key in begun if key != "partial"}
    return whole + made[at:]


def distinct(messages: list[Message]) -> list[Message]:
    """The messages with each call id once, as the vendor requires: a later call and its result get an id made
    from theirs and from the ids before them. The history must come from `repaired`."""
    called = [id for message in messages if "tool_calls" in message for id in _ids(message)]
    if len(set(called)) == len(called):
        return messages
    made: list[Message] = []
    taken = set[str]()
    counts: dict[str, int] = {}
    renamed: dict[str, deque[str]] = {}  # of the last turn, by the id of its results
    for message in messages:
        if message.get("tool_calls"):
            calls, renamed = [], {}
            for call in message["tool_calls"]:
                if type(id := call.get("id")) is str:
                    new = _free(id, taken, counts)
                    renamed.setdefault(id, deque()).append(new)
                    call = call if new == id else {**call, "id": new}
                calls.append(call)
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool" and (news := renamed.get(message["tool_call_id"])):
            message = {**message, "tool_call_id": news.popleft()}
        made.append(message)
    return made


def _ids(message: Message) -> list[str]:
    return [call["id"] for call in message["tool_calls"] or () if type(call.get("id")) is str]


def _free(id: str, taken: set[str], counts: dict[str, int]) -> str:
    """A free id. Counting continues from the last one of its name, so a large number of equal ids is
    cheap."""
    new = id
    while new in taken:
        counts[id] = counts.get(id, 1) + 1
        new = f"{id}_{counts[id]}"
    taken.add(new)
    return new
