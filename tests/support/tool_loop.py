"""A client that runs tools and drops reasoning, in each dialect: what it keeps of an answer is what it sends
again. One class a dialect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.live import LiveGateway, events

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


@dataclass
class MessagesLoop:
    key: str
    model: str
    messages: list[Json] = field(default_factory=lambda: [{"role": "user", "content": "Begin: 开始"}])

    def turn(self, gateway: LiveGateway, stream: bool) -> Calls:
        body = {
            "model": self.model,
            "max_tokens": 4_096,
            "thinking": {"type": "enabled", "budget_tokens": 2_048},
            "messages": self.messages,
            "tools": [{"name": name, "input_schema": parameters} for name, parameters in TOOLS.items()],
            "stream": stream,
        }
        with gateway.client(self.key) as client:
            answer = client.post("/v1/messages", json=body)
        assert answer.status_code == 200, answer.text
        blocks = _blocks(answer.text) if stream else answer.json()["content"]
        calls = [block for block in blocks if block["type"] == "tool_use"]
        self.messages.append({"role": "assistant", "content": calls})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": f"did {call['name']}"}
            for call in calls
        ]
        self.messages.append({"role": "user", "content": results})
        return [(call["name"], call["input"]) for call in calls]


def _blocks(text: str) -> list[Json]:
    blocks: dict[int, Json] = {}
    inputs: dict[int, str] = {}
    for event in _events(text):
        if event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"]
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            at = event["index"]
            inputs[at] = inputs.get(at, "") + event["delta"]["partial_json"]
    for at, text in inputs.items():
        blocks[at]["input"] = json.loads(text or "{}")
    return list(blocks.values())


def _events(text: str) -> list[Json]:
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@dataclass
class ResponsesLoop:
    key: str
    model: str
    items: list[Json] = field(default_factory=lambda: [{"role": "user", "content": "Begin: 开始"}])

    def turn(self, gateway: LiveGateway, stream: bool) -> Calls:
        body = {
            "model": self.model,
            "input": self.items,
            "tools": [
                {"type": "function", "name": name, "parameters": parameters}
                for name, parameters in TOOLS.items()
            ],
            "stream": stream,
        }
        with gateway.client(self.key) as client:
            answer = client.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        whole = _events(answer.text)[-1]["response"] if stream else answer.json()
        calls = [item for item in whole["output"] if item["type"] == "function_call"]
        self.items += calls
        self.items += [
            {"type": "function_call_output", "call_id": call["call_id"], "output": f"did {call['name']}"}
            for call in calls
        ]
        return [(call["name"], json.loads(call["arguments"])) for call in calls]


LOOPS: dict[str, Callable[[str, str], ToolLoop]] = {
    "chat completions": ChatLoop,
    "messages": MessagesLoop,
    "responses": ResponsesLoop,
}
