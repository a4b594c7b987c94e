"""A client that runs tools and drops reasoning, in each dialect: what it keeps of an answer is what it sends
again. One class a dialect: `question` begins, `answer` takes the gateway's answer to the calls in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from live import LiveGateway, events

Json = dict[str, Any]
Calls = Sequence[tuple[str, Json]]
TOOLS: Mapping[str, Json] = {
    "step": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "look": {"type": "object", "properties": {}},
}


class ToolLoop(Protocol):
    """One conversation. `turn` asks, keeps the answer without its reasoning, and the results of its calls."""

    def turn(self, gateway: LiveGateway, stream: bool) -> Calls: ...


@dataclass
class ChatLoop:
    key: str
    model: str
    messages: list[Json] = field(default_factory=lambda: [{"role": "user", "content": "Begin: 开始"}])

    def turn(self, gateway: LiveGateway, stream: bool) -> Calls:
        tools = [
            {"type": "function", "function": {"name": name, "parameters": parameters}}
            for name, parameters in TOOLS.items()
        ]
        answer = gateway.chat(self.key, model=self.model, messages=self.messages, tools=tools, stream=stream)
        assert answer.status_code == 200, answer.text
        calls = _streamed(answer.text) if stream else answer.json()["choices"][0]["message"]["tool_calls"]
        self.messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for call in calls:
            result = f"did {call['function']['name']}"
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def _streamed(text: str) -> list[Json]:
    calls: dict[int, Json] = {}
    for data in events(text)[:-1]:
        for choice in json.loads(data)["choices"]:
            for piece in choice["delta"].get("tool_calls") or ():
                function = {"name": piece["function"].get("name"), "arguments": ""}
                call = calls.setdefault(
                    piece["index"], {"id": piece.get("id"), "type": "function", "function": function}
                )
                call["function"]["arguments"] += piece["function"]["arguments"]
    return [calls[index] for index in sorted(calls)]


LOOPS: dict[str, type[ChatLoop]] = {"chat completions": ChatLoop}
