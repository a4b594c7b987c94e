"""Translates the messages of a conversation into the pivot.

Anthropic puts tool results among a user's other blocks and allows consecutive messages of one role. Kimi
requires one message for each turn of the assistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kimi_gateway.dialects.messages import content, ids
from kimi_gateway.dialects.messages.content import Parts
from kimi_gateway.dialects.responses.seal import is_seal, unseal
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import fields, repair
from kimi_gateway.pivot.fields import fail

Message = dict[str, Any]

ERROR = "Error: "  # before the result of a failed tool, because the upstream has no flag for it
# The first line of Claude Code's system prompt. It changes with each request, which would defeat the vendor's
# prefix cache, and means nothing to a model (2026-06).
_BILLING = "x-anthropic-billing-header:"


def system(value: Any, where: str) -> list[Message]:
    """The system prompt, from a string or text blocks."""
    blocks = [{"type": "text", "text": value}] if type(value) is str else value
    fields.array(blocks, where)
    said: Parts = []
    for index, block in enumerate(blocks):
        here = f"{where}.{index}"
        if content.kind_of(block, here) != "text":
            fail(f"{here}.type", "must be text")
        words = content.text(block, here)
        if words.startswith(_BILLING):
            words = words.partition("\n")[2].lstrip("\n")
        if words:
            said.append({"type": "text", "text": words})
    return [{"role": "system", "content": content.plain(said)}] if said else []


def messages(value: Any, where: str, unread: list[str], seals: dict[str, str]) -> list[Message]:
    """The pivot's messages. The last one is `partial` if it is the assistant's. `unread` collects the
    client's names for dropped and repaired content, `seals` the signatures of thinking blocks by their text.
    Raises InvalidRequest naming the place."""
    fields.array(value, where)
    if not value:
        fail(where, "must not be empty")
    history = _History(unread, seals)
    for index, message in enumerate(value):
        here = f"{where}.{index}"
        fields.mapping(message, here)
        role = message.get("role")
        fields.one_of("user", "assistant", "system")(role, f"{here}.role")
        said = message.get("content")
        if type(said) is not list:
            fields.string(said, f"{here}.content")
        match role:
            case "user":
                history.user(said, f"{here}.content")
            case "assistant":
                history.assistant(said, f"{here}.content")
            case _:
                history.system(said, f"{here}.content")
    made, repaired = history.end()
    unread += repaired
    if not made:
        fail(where, "has only empty messages")
    last = made[-1]
    if last["role"] == "assistant":
        last["partial"] = True
    return made


class _History:
    def __init__(self, unread: list[str], seals: dict[str, str]) -> None:
        self._made: list[Message] = []
        self._places: list[Sequence[str]] = []  # paths of each message's calls, or of its result
        self._unread = unread
        self._seals = seals
        self._turn: _Turn | None = None  # the assistant's turn to which its next message belongs

    def assistant(self, said: str | list[Any], where: str) -> None:
        blocks = said if type(said) is list else [{"type": "text", "text": said}]
        if self._turn is None:
            self._turn = _Turn(self._seals)
        for index, block in enumerate(blocks):
            self._turn.add(block, f"{where}.{index}")

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        message = None if turn is None else turn.message()
        if turn is not None and message is not None:
            self._add(message, turn.places)

    def _add(self, message: Message, places: Sequence[str] = ()) -> None:
        self._made.append(message)
        self._places.append(places)

    def system(self, said: Any, where: str) -> None:
        if made := system(said, where):
            self._end_turn()
            self._add(made[0])

    def end(self) -> tuple[list[Message], list[str]]:
        self._end_turn()
        return repair.repaired(self._made, lambda message, call: self._places[message][max(call, 0)])

    def user(self, said: str | list[Any], where: str) -> None:
        self._end_turn()
        blocks = said if type(said) is list else [{"type": "text", "text": said}]
        parts: Parts = []
        before = len(self._made)
        for index, block in enumerate(blocks):
            here = f"{where}.{index}"
            if content.kind_of(block, here) == "tool_result":
                self._result(block, here)
            else:
                parts += content.block(block, here, self._unread)
        if parts:
            self._add({"role": "user", "content": content.plain(parts)})
        elif len(self._made) == before:
            fail(where, "must not be empty")

    def _result(self, block: dict[str, Any], where: str) -> None:
        id = ids.upstream(content.text(block, where, "tool_use_id"))
        given = block.get("content")
        parts = [] if given is None else content.parts(given, f"{where}.content", self._unread, result=True)
        if block.get("is_error") is not None:
            fields.boolean(block["is_error"], f"{where}.is_error")
        if block.get("is_error"):
            parts = _marked(parts)
        result = {"role": "tool", "tool_call_id": id, "content": content.plain(parts) if parts else ""}
        self._add(result, (f"{where}.tool_use_id",))


def _marked(parts: Parts) -> Parts:
    if parts and parts[0]["type"] == "text":
        return [{"type": "text", "text": ERROR + parts[0]["text"]}, *parts[1:]]
    return [{"type": "text", "text": ERROR.strip()}, *parts]


class _Turn:
    """The assistant's content in one turn, from one or more messages."""

    def __init__(self, seals: dict[str, str]) -> None:
        self._seals = seals
        self._texts: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self.places: list[str] = []

    def add(self, block: Any, where: str) -> None:
        match content.kind_of(block, where):
            case "text":
                self._texts.append(content.text(block, where))
            case "thinking":
                self._add_thinking(block, where)
            case "redacted_thinking":  # sealed by another server
                pass
            case "tool_use":
                self._call(block, where)
            case _:
                self._texts.append(content.foreign(block, where))

    def _add_thinking(self, block: dict[str, Any], where: str) -> None:
        thinking, seal = content.text(block, where, "thinking"), block.get("signature")
        if not thinking.strip():
            thinking = unseal(seal) or thinking
        self._thinking.append(thinking)
        if isinstance(seal, str) and seal not in ("", content.SIGNATURE) and not is_seal(seal):
            self._seals[thinking] = seal

    def _call(self, block: dict[str, Any], where: str) -> None:
        id = ids.upstream(content.text(block, where, "id"))
        fields.mapping(block.get("input"), f"{where}.input")
        self.places.append(f"{where}.id")
        function = {
            "name": content.text(block, where, "name"),
            "arguments": jsonio.dumps(block["input"]).decode(),
        }
        self._calls.append({"id": id, "type": "function", "function": function})

    def message(self) -> Message | None:
        """The message; None if it has neither text nor calls, which the vendor refuses."""
        said, thinking = "".join(self._texts), "".join(self._thinking)
        if not said and not self._calls:
            return None
        message: Message = {"role": "assistant", "content": said}
        if thinking:
            message["reasoning_content"] = thinking
        if self._calls:
            message["tool_calls"] = self._calls
        return message
