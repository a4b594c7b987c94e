"""The vendor's own Messages endpoint: what it refuses, and its answers as events. Facts: docs/upstream.md."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from upstream import kimi, mfjs, rules
from upstream.kimi import Json, Tools

PATH = "/anthropic/v1/messages"
FIELDS = {"model", "messages", "max_tokens", "system", "stop_sequences", "tools", "tool_choice",
          "output_config", "metadata", "stream", "cache_control"}  # fmt: skip
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9-_]{0,127}")
IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}
BLOCKS = {
    "user": {"text", "image", "tool_result"},
    "assistant": {"text", "thinking", "tool_use"},
}
SIGNATURE = "c2lnbmVkIGJ5IHRoZSB2ZW5kb3I="


def refusal(headers: dict[str, str], body: Json, models: Collection[str]) -> tuple[int, Json] | None:
    """Status and body of a refusal; an unknown field, of which the vendor says nothing, is one too."""
    if body.get("model") not in models or not body["model"].startswith("kimi-k3"):
        return 404, _error("resource_not_found_error", f"Not found the model {body.get('model')}")
    histories = _histories(body) if rules.STRICT_HISTORIES else ()
    for text in (*_headers(headers), *_fields(body), *_tools(body), *_messages(body), *histories):
        return 400, _error("invalid_request_error", text)
    return None


def _error(kind: str, text: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req-0"}


def _headers(headers: dict[str, str]) -> Iterator[str]:
    if headers.get("anthropic-version") != "2023-06-01":
        yield "anthropic-version"
    if "anthropic-beta" in headers or "x-api-key" in headers:
        yield "a header that is not documented"


def _fields(body: Json) -> Iterator[str]:
    yield from (f"unknown field {name}" for name in body.keys() - FIELDS)
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
        yield "max_tokens"
    for block in body.get("system", ()):
        if block.keys() != {"type", "text"}:
            yield "system"
    if (body.get("output_config") or {}).get("effort", "low") not in ("low", "high", "max"):
        yield "output_config.effort"
    if len(body.get("stop_sequences", ())) > 5:
        yield "stop_sequences"


def _tools(body: Json) -> Iterator[str]:
    for tool in body.get("tools", ()):
        if not NAME.fullmatch(tool["name"]) or tool["input_schema"].get("type") != "object":
            yield f"tool {tool['name']}"
        elif text := mfjs.refusal(tool["input_schema"]):
            yield text
        if tool.keys() - {"name", "description", "input_schema", "type"}:
            yield f"unknown members of tool {tool['name']}"
    if "tool_choice" in body and body["tool_choice"].get("type") not in ("auto", "any", "none"):
        yield "tool_choice"


def _messages(body: Json) -> Iterator[str]:
    before, waiting = "assistant", set[str]()
    for at, message in enumerate(body["messages"]):
        role, blocks = message["role"], message["content"]
        if role not in BLOCKS or role == before or not blocks:
            yield f"messages.{at}: role {role} after {before}, {len(blocks)} blocks"
            return
        for block in blocks:
            if block["type"] not in BLOCKS[role]:
                yield f"messages.{at}: {block['type']}"
            if block["type"] == "tool_result":
                if block.keys() != {"type", "tool_use_id", "content"} or block["tool_use_id"] not in waiting:
                    yield f"messages.{at}: tool_result {block}"
                waiting.discard(block["tool_use_id"])
            if block["type"] == "image" and not _is_image(block["source"]):
                yield f"messages.{at}: image {block['source']['type']}"
        if waiting:
            yield f"messages.{at}: no result for {waiting}"
        waiting |= {block["id"] for block in blocks if block["type"] == "tool_use"}
        before = role
    if waiting:
        yield f"no result for {waiting}"


def _histories(body: Json) -> Iterator[str]:
    """As `rules` has them for Chat Completions."""
    if body.get("tools") == []:
        yield "tools must not be empty"
    seen = set[str]()
    for at, message in enumerate(body["messages"]):
        for block in message["content"]:
            inner = block["content"] if block["type"] == "tool_result" else [block]
            if any(each["type"] == "text" and not each["text"] for each in inner):
                yield f"messages.{at}: text content is empty"
            if block["type"] == "tool_result" and not any(each["type"] == "text" for each in inner):
                yield f"messages.{at}: tool_result must have a text"
            if block["type"] == "tool_use":
                if block["id"] in seen:
                    yield f"messages.{at}: tool_use id {block['id']} is duplicated"
                seen.add(block["id"])


def _is_image(source: Json) -> bool:
    if source["type"] == "url":
        return str(source["url"]).startswith("ms://")
    return source["type"] == "base64" and source["media_type"] in IMAGES and bool(source["data"])


def events(
    text: str,
    reasoning: str | None,
    tools: Tools,
    *,
    usage: Json,
    model: str,
    finish: str | None,
    pieces: int,
    first_call: int = 0,
) -> list[bytes]:
    """One answer: thinking, text, calls; each frame with its `event:` line."""
    counts = _usage(usage)
    head = {"id": "msg_0", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": counts | {"output_tokens": 1}}  # fmt: skip
    told: list[Json] = [{"type": "message_start", "message": head}]
    blocks: list[tuple[Json, list[Json]]] = []
    if reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in kimi.split(reasoning, pieces)]
        signed = {"type": "signature_delta", "signature": SIGNATURE}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]))
    if text:
        deltas = [{"type": "text_delta", "text": piece} for piece in kimi.split(text, pieces)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    for index, (name, arguments) in enumerate(tools, first_call):
        whole = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in kimi.split(whole, pieces)]
        blocks.append(({"type": "tool_use", "id": f"{name}_{index}", "name": name, "input": {}}, deltas))
    for index, (block, deltas) in enumerate(blocks):
        told.append({"type": "content_block_start", "index": index, "content_block": block})
        told += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        told.append({"type": "content_block_stop", "index": index})
    reason = {"length": "max_tokens", None: "tool_use" if tools else "end_turn"}.get(finish, "end_turn")
    told.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": counts})
    told.append({"type": "message_stop"})
    return [_frame(event) for event in told]


def _usage(usage: Json) -> dict[str, Any]:
    cached = usage.get("cached_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage["completion_tokens"],
    }


def _frame(event: Json) -> bytes:
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data}\n\n".encode()
