"""The vendor's own Messages endpoint: pivot requests in its format, its events as pivot chunks.

Its format: docs/upstream.md. The pivot stays in between, so every rule, attempt, stop string and count is the
same on both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_gateway.dialects.messages.block_sequencer import WINDOW
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot.usage import counts

Json = dict[str, Any]

HEADERS = {"anthropic-version": "2023-06-01"}


def payload(body: Mapping[str, Any], seals: Mapping[str, str]) -> bytes:
    """The request. `body` is an adapted pivot request; `seals` are signatures of earlier thinking, by its
    text."""
    told: Json = {
        "model": body["model"],
        "max_tokens": body["max_completion_tokens"],
        "messages": [],
        "stream": True,
    }
    messages: list[Json] = body["messages"]
    first = next((at for at, each in enumerate(messages) if each["role"] != "system"), len(messages))
    system = [block for message in messages[:first] for block in _blocks(message["content"])]
    if system:
        told["system"] = system
    for message in messages[first:]:
        _add(told["messages"], message, seals)
    if body.get("tools"):
        told["tools"] = [_tool(tool["function"]) for tool in body["tools"]]
        _choose(told, body.get("tool_choice"))
    _add_options(told, body)
    return jsonio.dumps(told)


def _add_options(told: Json, body: Mapping[str, Any]) -> None:
    """Add the options that the endpoint knows; others are dropped."""
    config: Json = {}
    if "reasoning_effort" in body:
        config["effort"] = body["reasoning_effort"]
    style = body.get("response_format") or {}
    schema = (style.get("json_schema") or {}).get("schema")
    if style.get("type") == "json_schema" and isinstance(schema, dict):  # the pivot's may have no schema
        config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        told["output_config"] = config
    if "safety_identifier" in body:
        told["metadata"] = {"user_id": body["safety_identifier"]}
    options = body.get("prompt_cache_options")  # the client's own may be anything
    if isinstance(options, dict) and isinstance(options.get("ttl"), str):
        told["cache_control"] = {"type": "ephemeral", "ttl": options["ttl"]}


def _choose(told: Json, choice: Any) -> None:
    """The endpoint cannot choose one tool by name, so only that tool is offered, with "any"."""
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        told["tools"] = [tool for tool in told["tools"] if tool["name"] == name]
        choice = "required"
    if choice is not None:
        told["tool_choice"] = {"type": "any" if choice == "required" else choice}


def _tool(function: Json) -> Json:
    rest = {name: function[name] for name in ("description",) if name in function}
    return {"name": function["name"], **rest, "input_schema": function["parameters"]}


def _add(said: list[Json], message: Json, seals: Mapping[str, str]) -> None:
    role, blocks = message["role"], _blocks(message.get("content"))
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": blocks}
        role, blocks = "user", [result]
    elif role == "system":  # in the middle, where the endpoint has no such role
        role = "user"
    elif role == "assistant":
        thinking = message.get("reasoning_content")
        if thinking:
            seal = seals.get(thinking, "")
            blocks.insert(0, {"type": "thinking", "thinking": thinking, "signature": seal})
        blocks += map(_use, message.get("tool_calls", ()))
    if said and said[-1]["role"] == role:
        said[-1]["content"] += blocks
    else:
        said.append({"role": role, "content": blocks})


def _use(call: Json) -> Json:
    function = call["function"]
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": jsonio.loads(function["arguments"].encode()),
    }


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_block(part) for part in content or ()]


def _block(part: Json) -> Json:
    if part["type"] == "text":
        return part
    url: str = part["image_url"]["url"]
    if url.startswith("ms://"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    head, _, data = url.partition(",")
    media_type = head.removeprefix("data:").partition(";")[0]
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    WINDOW: "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TEXTS = {
    "text_delta": ("text", "content"),
    "thinking_delta": ("thinking", "reasoning_content"),
    "signature_delta": ("signature", "reasoning_signature"),
}


class Reader:
    """Translates the events of one answer to the pivot's. Unknown events pass unchanged; the pivot's own
    reader judges them."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # by the block's index
        self._usage: Json = {}

    def pivot(self, events: list[sse.Event]) -> list[sse.Event]:
        read = map(self._event, events)
        return [event for event in read if event is not None]

    def _event(self, event: sse.Event) -> sse.Event | None:
        try:
            body = jsonio.loads(event[0])
            match body["type"]:
                case "message_start":
                    self._usage |= counts(body["message"].get("usage") or {})
                    return _chunk({"role": "assistant", "content": ""})
                case "content_block_start":
                    return self._start(body["index"], body["content_block"])
                case "content_block_delta":
                    return self._delta(body["index"], body["delta"])
                case "message_delta":
                    self._usage |= counts(body.get("usage") or {})
                    reason = body["delta"].get("stop_reason")
                    return self._end(reason) if reason else None
                case "message_stop":
                    return b"[DONE]", b""
                case "content_block_stop" | "ping":
                    return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        return event

    def _end(self, reason: str) -> sse.Event:
        """The last chunk. The pivot has no finish reason for the window; the writer of Messages recognises it
        by the stop reason."""
        body: Json = {"index": 0, "delta": {}, "finish_reason": _FINISH.get(reason, "stop")}
        if reason == WINDOW:
            body["stop_reason"] = WINDOW
        return jsonio.dumps({"choices": [body], "usage": self._counts()}), b""

    def _start(self, index: int, block: Json) -> sse.Event | None:
        if block["type"] != "tool_use":
            return None
        self._calls[index] = at = len(self._calls)
        function = {"name": block["name"], "arguments": ""}
        if block.get("input"):
            function["arguments"] = jsonio.dumps(block["input"]).decode()
        return _chunk(
            {"tool_calls": [{"index": at, "id": block["id"], "type": "function", "function": function}]}
        )

    def _delta(self, index: int, delta: Json) -> sse.Event | None:
        if delta["type"] == "input_json_delta":
            piece = {"index": self._calls[index], "function": {"arguments": delta["partial_json"]}}
            return _chunk({"tool_calls": [piece]})
        if delta["type"] not in _TEXTS:
            return None
        name, pivot = _TEXTS[delta["type"]]
        return _chunk({pivot: delta[name]})

    def _counts(self) -> Json:
        fresh, read, written = (
            self._usage.get(name) or 0
            for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        output = self._usage.get("output_tokens") or 0
        counts: Json = {
            "prompt_tokens": fresh + read + written,
            "completion_tokens": output,
            "total_tokens": fresh + read + written + output,
            "cached_tokens": read,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        }
        details = self._usage.get("output_tokens_details")
        if isinstance(details, dict) and "thinking_tokens" in details:
            counts["completion_tokens_details"] = {"reasoning_tokens": details["thinking_tokens"]}
        return counts


def _chunk(delta: Json) -> sse.Event:
    return jsonio.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}), b""
