"""Kept answers, as `GET /v1/responses/{id}` and its input items show them.

Shapes: OpenAI's SDK, 2026-11."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_gateway.dialects.responses import references
from kimi_gateway.pivot.call_ids import vendors

Item = dict[str, Any]


def response(name: str, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The response as it was answered; None if it is not kept. `found` are its unpacked entries."""
    asked, items = (found.get(each) for each in references.names(name))
    if not isinstance(asked, dict) or items is None:
        return None
    return {**asked["response"], "output": items}


def input_items(name: str, found: Mapping[str, Any]) -> list[Item]:
    """The conversation before the answer as items, the first one first. Their ids name nothing else."""
    asked = found[references.names(name)[0]]
    items = [item for message in references.messages_of(asked) for item in items_of(message)]
    name_calls(items, references.called_of(asked))
    prefixes = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
    return [{"id": f"{prefixes[item['type']]}_{name}_in_{place}", **item} for place, item in enumerate(items)]


def name_calls(items: list[Item], called: list[str]) -> None:
    """Give calls and their results the ids that the client knows. `called` has those of the calls in their
    order; the vendor may give several calls the same id."""
    known: dict[str, deque[str]] = {}
    for id in called:
        known.setdefault(vendors(id), deque()).append(id)
    unanswered: dict[str, deque[str]] = {}
    for item in items:
        if "call_id" not in item:
            continue
        id, ids = item["call_id"], known if item["type"] == "function_call" else unanswered
        if ids.get(id):
            item["call_id"] = ids[id].popleft()
            if ids is known:
                unanswered.setdefault(id, deque()).append(item["call_id"])


def items_of(message: Mapping[str, Any]) -> Iterator[Item]:
    """A message of the pivot as items."""
    role, content = message["role"], message.get("content")
    done = {"status": "completed"}
    if role == "tool":
        call, text = message["tool_call_id"], _text(content)
        yield {"type": "function_call_output", "call_id": call, "output": text, **done}
        return
    if role == "assistant":
        if text := _text(content):
            part = {"type": "output_text", "text": text, "annotations": []}
            yield {"type": "message", "role": role, "content": [part], **done}
        for call in message.get("tool_calls") or ():
            function = call["function"]
            told = {"name": function["name"], "arguments": function["arguments"]}
            yield {"type": "function_call", "call_id": call["id"], **told, **done}
        return
    given = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    yield {"type": "message", "role": role, "content": [_part(part) for part in given], **done}


def _part(part: Mapping[str, Any]) -> Item:
    if part.get("type") == "text":
        return {"type": "input_text", "text": part.get("text", "")}
    address = part.get("image_url") or part.get("video_url")
    url = address.get("url") if isinstance(address, dict) else address
    if url is None and part.get("kind") in ("image", "video"):
        url = part.get("address")
    if url is not None or part.get("kind") in ("image", "video"):
        return {"type": "input_image", "detail": "auto", "image_url": url, "file_id": part.get("file_id")}
    return {"type": "input_file", "filename": part.get("filename"), "file_id": part.get("file_id")}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content or "")
