"""Translates input items into the pivot's messages. Consecutive items of the assistant (reasoning, text,
calls) become one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kimi_gateway.dialects.responses import parts
from kimi_gateway.dialects.responses.seal import unseal
from kimi_gateway.dialects.responses.tools import FREE_TEXT, Toolbox, flat
from kimi_gateway.net import jsonio
from kimi_gateway.observe import emit
from kimi_gateway.pivot import fields, repair
from kimi_gateway.pivot.fields import Check, fail

# Calls of OpenAI's own tools: the tool's name, and the member with its arguments.
_CALLS = {
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
_OUTPUTS = (
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
)
# Items of OpenAI's servers, which contain nothing for another model (the SDK's input types, 2026-11).
_LEFT_OUT = frozenset(
    (
        "web_search_call",
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "code_interpreter_call",
        "image_generation_call",
        "tool_search_call",
        "tool_search_output",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "configuration_update",
        "program",
        "program_output",
    )
)


SUMMARY = "A summary of the conversation before, by the assistant:"


class Conversation:
    """Messages under construction. `messages` may begin with those of an earlier request."""

    def __init__(self, messages: Iterable[dict[str, Any]], toolbox: Toolbox) -> None:
        self.messages = list(messages)
        self._toolbox = toolbox
        self._reasoning: list[str] = []
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._places: list[tuple[str, ...]] = [()] * len(
            self.messages
        )  # paths of each message's calls, or of its output
        self._called: list[str] = []
        self.ids: list[str] = []  # the client's, of all calls that were added
        self._left_out: set[str] = set()

    def add(self, items: Iterable[Any], where: str) -> None:
        """Add items. Raises InvalidRequest naming the item's field."""
        for index, item in enumerate(items):
            here = f"{where}.{index}"
            fields.mapping(item, here)
            kind = item.get("type") or "message"
            fields.string(kind, f"{here}.type")
            if kind in _LEFT_OUT:
                self._leave_out(kind)
            elif kind in _KINDS:
                read, checks = _KINDS[kind]
                for name, check in checks.items():
                    check(item.get(name), f"{here}.{name}")
                read(self, item, here)
            else:
                fail(f"{here}.type", f"{kind[:80]} is not supported")

    def _leave_out(self, kind: str) -> None:
        if kind not in self._left_out:
            self._left_out.add(kind)
            emit("item_left_out", kind=kind)

    def end(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The messages, and the client's names for repaired places."""
        self._end_turn()
        return repair.repaired(self.messages, self._place)

    def _place(self, message: int, call: int) -> str:
        """The client's path. Content of an earlier answer has only that answer's name."""
        places = self._places[message]
        return places[max(call, 0)] if places else "previous_response_id"

    def _end_turn(self) -> None:
        """Finish the assistant's message. Reasoning alone is dropped, because the vendor refuses an empty
        message."""
        if self._calls or any(self._texts):
            message: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(filter(None, self._texts))}
            if reasoning := "".join(self._reasoning):
                message["reasoning_content"] = reasoning
            if self._calls:
                message["tool_calls"] = self._calls
            self.messages.append(message)
            self._places.append(tuple(self._called))
        self._reasoning, self._texts, self._calls, self._called = [], [], [], []

    def _append(self, message: dict[str, Any], *places: str) -> None:
        self._end_turn()
        self.messages.append(message)
        self._places.append(places)

    def message(self, item: dict[str, Any], here: str) -> None:
        content = parts.read(item.get("content"), f"{here}.content")
        if item["role"] == "assistant":
            self._texts.append(parts.text_of(content))
        elif content:  # the vendor refuses an empty one
            self._append({"role": "user" if item["role"] == "user" else "system", "content": content})

    def agent_message(self, item: dict[str, Any], here: str) -> None:
        told = parts.text_of(parts.read(item.get("content"), f"{here}.content"))
        self._append({"role": "user", "content": f"{item['author']}: {told}"})

    def reasoning(self, item: dict[str, Any], here: str) -> None:
        """Add the most complete form of the reasoning: our sealed text, else `content`, else the summary."""
        told = unseal(item.get("encrypted_content"))
        for name in ("content", "summary"):
            if not told and item.get(name):
                fields.array(item[name], f"{here}.{name}")
                texts = [part.get("text") for part in item[name] if isinstance(part, dict)]
                told = "\n\n".join(text for text in texts if isinstance(text, str))
        self._reasoning.append(told or "")

    def compaction(self, item: dict[str, Any], here: str) -> None:
        summary = unseal(item["encrypted_content"])
        if summary is None:
            fail(f"{here}.encrypted_content", "was not made here; only the service that made it can read it")
        self._append({"role": "system", "content": f"{SUMMARY}\n\n{summary}"})

    def function_call(self, item: dict[str, Any], here: str) -> None:
        self._call(item, here, flat(item["name"], item.get("namespace")), item["arguments"] or "{}")

    def custom_tool_call(self, item: dict[str, Any], here: str) -> None:
        arguments = _json({FREE_TEXT: item["input"]})
        self._call(item, here, flat(item["name"], item.get("namespace")), arguments)

    def own_call(self, item: dict[str, Any], here: str) -> None:
        name, member = _CALLS[item["type"]]
        self._call(item, here, name, _json(item.get(member)))

    def _call(self, item: dict[str, Any], here: str, name: str, arguments: str) -> None:
        function = {"name": name, "arguments": arguments}
        self._called.append(f"{here}.call_id")
        self.ids.append(item["call_id"])
        self._calls.append({"id": item["call_id"], "type": "function", "function": function})

    def output(self, item: dict[str, Any], here: str) -> None:
        call = item.get("call_id") or item.get("id")  # the local shell has no call_id
        fields.string(call, f"{here}.call_id")
        told = item["output"] if "output" in item else item.get("status")
        if parts.are_parts(told):
            told = parts.read(told, f"{here}.output", result=True)
        elif not isinstance(told, str):
            told = "" if told is None else _json(told)
        self._append({"role": "tool", "tool_call_id": call, "content": told}, f"{here}.call_id")

    def additional_tools(self, item: dict[str, Any], here: str) -> None:
        self._toolbox.add(item["tools"], f"{here}.tools")


def _json(value: Any) -> str:
    return jsonio.dumps(value).decode()


_Read = Callable[[Conversation, dict[str, Any], str], None]
_CALLED: dict[str, Check] = {"call_id": fields.string}
_KINDS: dict[str, tuple[_Read, dict[str, Check]]] = {
    "message": (
        Conversation.message,
        {"role": fields.one_of("user", "assistant", "system", "developer")},
    ),
    "agent_message": (
        Conversation.agent_message,
        {"author": fields.string},
    ),  # from Codex, about its sub-agents
    "reasoning": (Conversation.reasoning, {}),
    "compaction": (Conversation.compaction, {"encrypted_content": fields.string}),
    "function_call": (
        Conversation.function_call,
        {**_CALLED, "name": fields.string, "arguments": fields.string},
    ),
    "custom_tool_call": (
        Conversation.custom_tool_call,
        {**_CALLED, "name": fields.string, "input": fields.string},
    ),
    "additional_tools": (Conversation.additional_tools, {"tools": fields.array}),
    **dict.fromkeys(_CALLS, (Conversation.own_call, _CALLED)),
    **dict.fromkeys(_OUTPUTS, (Conversation.output, {})),
}
