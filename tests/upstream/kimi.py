"""What the vendor's platform says: models, answers as chunks and as one object, error bodies.
Facts and their sources: docs/upstream.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Json = dict[str, Any]
Tools = Sequence[tuple[str, Any]]  # (name, arguments); arguments already a string are sent as they are

TEXT = "Hello from Kimi: 你好, ça va? 👋 How can I help you today?"
REASONING = "The user greets me. A short answer will do."
CREATED = 1795212000
ID = "cmpl-0123456789abcdef0123456789abcdef"

WINDOWS = {
    "kimi-k3.1-pro": 1_048_576,
    "kimi-k3.1-pro-highspeed": 1_048_576,
    "kimi-k3": 1_048_576,
    "kimi-k2.7-code": 262_144,
    "kimi-k2.7-code-highspeed": 262_144,
    "kimi-k2.6": 262_144,
}


def model_row(model: str) -> Json:
    return {
        "id": model,
        "object": "model",
        "created": 1784160000,
        "owned_by": "moonshot",
        "context_length": WINDOWS.get(model, 262_144),
        "supports_image_in": True,
        "supports_video_in": True,
        "supports_reasoning": True,
    }


def balance(available: float, voucher: float = 46.58) -> Json:
    data = {
        "available_balance": available,
        "voucher_balance": voucher,
        "cash_balance": round(available - voucher, 2),
    }
    return {"code": 0, "data": data, "scode": "0x0", "status": True}


def thinks(body: Json) -> bool:
    """K2.6 thinks unless told not to, the others always."""
    thinking = body.get("thinking")
    off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return not (off and body.get("model") == "kimi-k2.6")


def error(type: str, message: str) -> Json:
    return {"error": {"type": type, "message": message}}


def tokens(value: object) -> int:
    """The emulator's own count: four bytes of JSON a token, at least one."""
    return max(1, len(json.dumps(value, ensure_ascii=False).encode()) // 4)


def usage_of(prompt: int, completion: int, cached: int = 0) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cached_tokens": cached,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def completion(
    text: str = TEXT,
    reasoning: str | None = None,
    tools: Tools = (),
    *,
    usage: Json | None = None,
    model: str = "kimi-k3",
    finish: str | None = None,
    id: str = ID,
    first_call: int = 0,
) -> Json:
    """The answer of a request without `stream`. `first_call`: calls of the conversation before, which the
    vendor's call ids count on from.
    """
    message: Json = {"role": "assistant", "content": text}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if tools:
        message["tool_calls"] = [
            _call(index, name, _text(arguments)) for index, (name, arguments) in enumerate(tools, first_call)
        ]
    return {
        "id": id,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if tools else "stop")}
        ],
        "usage": usage or usage_of(12, tokens([text, reasoning])),
    }


def chat_events(
    text: str = TEXT,
    reasoning: str | None = None,
    tools: Tools = (),
    *,
    usage: Json | None = None,
    model: str = "kimi-k3",
    finish: str | None = None,
    id: str = ID,
    first_call: int = 0,
    pieces: int = 4,
    include_usage: bool = False,
) -> list[Json]:
    """The chunks of the same answer as `completion`: role, reasoning, content, calls (their fragments
    interleaved), finish with usage in both of its places, and the extra usage chunk where asked for.
    """
    usage = usage or usage_of(12, tokens([text, reasoning]))
    head = {"id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in split(reasoning or "", pieces)]
    deltas += [{"content": piece} for piece in split(text, pieces)]
    deltas += [{"tool_calls": [fragment]} for fragment in _fragments(tools, pieces, first_call)]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if include_usage:
        for event in events:
            event["usage"] = None
    reason = finish or ("tool_calls" if tools else "stop")
    last = {"index": 0, "delta": {}, "finish_reason": reason, "usage": usage}
    events.append({**head, "choices": [last], "usage": usage})
    if include_usage:
        events.append({**head, "choices": [], "usage": usage})
    return events


def _call(index: int, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": f"{name}:{index}", "type": "function", "function": function}


def _fragments(tools: Tools, pieces: int, first_call: int) -> Iterator[Json]:
    rest = []
    for index, (name, arguments) in enumerate(tools):
        yield {"index": index, **_call(first_call + index, name, "")}
        rest.append(split(_text(arguments), pieces))
    for turn in range(pieces):
        for index, fragments in enumerate(rest):
            if turn < len(fragments):
                yield {"index": index, "function": {"arguments": fragments[turn]}}


def _text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def split(text: str, pieces: int) -> list[str]:
    size = -(-len(text) // pieces) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]
