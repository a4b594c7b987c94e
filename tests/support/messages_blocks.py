"""Blocks, messages and tools for tests of Messages requests."""

from __future__ import annotations

import base64
from typing import Any

from support.messages_stream import asked

Json = dict[str, Any]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
DATA_URL = f"data:image/png;base64,{PNG}"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}
HI = {"role": "user", "content": "Hi"}
TOOL = {"name": "get", "description": "Gets.", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "get", "description": "Gets.", "parameters": TOOL["input_schema"]},
}
MARKED = {"type": "ephemeral"}


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def use(id: str, name: str = "get", **input: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def result(id: str, content: Any = "42", **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def called(*names: str, content: str = "", **more: Any) -> Json:
    calls = [{"id": id, "type": "function", "function": {"name": "get", "arguments": "{}"}} for id in names]
    return {"role": "assistant", "content": content, **more, "tool_calls": calls}


def tool(id: str, content: Any = "42") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def chat(**more: Any) -> Json:
    body: Json = asked(**more).chat.body
    return body
