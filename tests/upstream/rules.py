"""The vendor's own checks of a chat request, with its texts where they are known (docs/upstream.md).
An upstream kinder than the real one would hide the gateway's mistakes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from typing import Any

from upstream import mfjs
from upstream.kimi import WINDOWS, Json, error, thinks, tokens

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9-_]{0,127}")
MOST_TOOLS = 128
# A test of the emulator alone may turn the stricter checks of histories off; no test of the gateway does.
STRICT_HISTORIES = True
EMPTY: tuple[object, ...] = (None, "", [])


def refusal(body: Json, models: Collection[str]) -> tuple[int, Json] | None:
    """Status and body of the vendor's refusal, None where the request is in order."""
    model = body.get("model")
    if model not in models:
        text = f"Not found the model {model} or Permission denied"
        return 404, error("resource_not_found_error", text)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return 400, error("invalid_request_error", "Invalid request: messages must not be empty")
    histories = (_texts, _ids) if STRICT_HISTORIES else ()
    for check in (_sampling, _limits, _tools, _messages, _pairing, _media, *histories):
        for text in check(body):
            return 400, error("invalid_request_error", text)
    return None


def _sampling(body: Json) -> Iterator[str]:
    fixed = {"temperature": 1, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
    if not thinks(body):
        fixed["temperature"] = 0.6
    for name, only in fixed.items():
        if body.get(name) not in (None, only):
            yield f"invalid {name}: only {only} is allowed for this model"
    thinking = body.get("thinking")
    off = isinstance(thinking, dict) and thinking.get("type") != "enabled"
    if off and body["model"].startswith("kimi-k2.7"):
        yield "invalid thinking: only type=enabled is allowed for this model"


def _limits(body: Json) -> Iterator[str]:
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > 5 or any(len(item.encode()) > 32 for item in stops):
        yield "Invalid request: stop takes at most 5 strings of at most 32 bytes"
    output = body.get("max_completion_tokens", body.get("max_tokens"))
    if output is not None and (not isinstance(output, int) or output < 1):
        yield "Invalid request: max_completion_tokens must be a positive integer"
    window = WINDOWS.get(body["model"], 262_144)
    if tokens(_shortened(body["messages"])) + (output or 0) > window:
        yield f"Invalid request: Your request exceeded model token limit : {window}"
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        yield "Invalid request: top_logprobs needs logprobs"


def _shortened(value: Any) -> Any:
    """The messages without the bytes of their pictures and videos, which take no part of the window."""
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_shortened(member) for member in value]
    return value[:30] if isinstance(value, str) and value.startswith("data:") else value


def _tools(body: Json) -> Iterator[str]:
    tools = body.get("tools") or []
    if len(tools) > MOST_TOOLS:
        yield f"Invalid request: at most {MOST_TOOLS} tools are allowed"
    lists = [tools, *(message.get("tools") or [] for message in body["messages"])]
    names = [[(tool.get("function") or {}).get("name", "") for tool in some] for some in lists]
    for some in names:
        for name in some:
            if some.count(name) > 1:
                yield f"function name {name} is duplicated"
    for tool in itertools.chain(*lists):
        function = tool.get("function") or {}
        name = function.get("name", "")
        if tool.get("type") == "builtin_function":
            continue
        if not NAME.fullmatch(name):
            yield f"Invalid request: function name {name} is invalid"
        if text := mfjs.refusal(function.get("parameters")):
            yield text
    style = (body.get("response_format") or {}).get("json_schema") or {}
    if style.get("strict", True) and "schema" in style and (text := mfjs.refusal(style["schema"])):
        yield text.replace("tools.function.parameters", "response_format.json_schema.schema")
    yield from _choice(body, set(itertools.chain(*names)))


def _choice(body: Json, offered: set[str]) -> Iterator[str]:
    choice, model = body.get("tool_choice"), body["model"]
    if choice == "required" and not model.startswith("kimi-k3"):
        yield "tool_choice 'required' is incompatible with thinking enabled"
    if isinstance(choice, dict):
        if thinks(body):
            yield "tool_choice 'specified' is incompatible with thinking enabled"
        if (choice.get("function") or {}).get("name") not in offered:
            yield "Invalid request: specified function tool not found"
    if choice == "required" and not offered:
        yield "Invalid request: tool_choice needs tools"


def _messages(body: Json) -> Iterator[str]:
    last = len(body["messages"]) - 1
    for at, message in enumerate(body["messages"]):
        role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
        if role not in ("system", "user", "assistant", "tool"):
            yield f"Invalid request: unsupported role {role} at position {at}"
        if role == "system" and message.get("tools"):
            if content not in EMPTY:
                yield f"Invalid request: the message at position {at}: tools cannot be used with content"
        elif content in EMPTY and not calls:
            yield f"Invalid request: the message at position {at} with role '{role}' must not be empty"
        if calls and body["model"] == "kimi-k2.6" and thinks(body) and not message.get("reasoning_content"):
            yield (
                "thinking is enabled but reasoning_content is missing in assistant tool call message "
                f"at index {at}"
            )
        for call in calls or ():
            name = (call.get("function") or {}).get("name", "")
            if call.get("type") != "builtin_function" and not NAME.fullmatch(name):
                yield f"Invalid request: function name {name} is invalid"
        parts = content if isinstance(content, list) else []
        if any(part.get("type") == "text" and not part.get("text") for part in parts):
            yield f"Invalid request: text content is empty at position {at}"
        if role == "tool" and parts and not any(part.get("type") == "text" for part in parts):
            yield f"Invalid request: the tool message at position {at} has no text"
        if message.get("partial") and (at != last or role != "assistant" or body.get("response_format")):
            yield "Invalid request: partial is for the last assistant message, without response_format"


def _pairing(body: Json) -> Iterator[str]:
    """Each call has exactly one result, before the next turn, and an id of its own."""
    waiting: list[str] = []
    called = [call.get("id", "") for message in body["messages"] for call in message.get("tool_calls") or []]
    for id in called:
        if called.count(id) > 1:
            yield f"Invalid request: tool call id {id} is duplicated"
    for message in [*body["messages"], {"role": "end"}]:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                yield f"Invalid request: tool_call_id {message.get('tool_call_id')} not found"
                return
            waiting.remove(message["tool_call_id"])
        elif waiting:
            yield f"Invalid request: tool_call_id {waiting[0]} not found"
            return
        waiting += [call.get("id", "") for call in message.get("tool_calls") or []]


def _texts(body: Json) -> Iterator[str]:
    """Reports of 2026: a text of nothing, and a result that only shows pictures."""
    if body.get("tools") == []:
        yield "Invalid request: tools must not be empty"
    for at, message in enumerate(body["messages"]):
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        if not all(texts):
            yield f"Invalid request: text content is empty at position {at}"
        if message["role"] == "tool" and parts and not texts:
            yield f"Invalid request: the tool message at position {at} must have a text"


def _ids(body: Json) -> Iterator[str]:
    """One call id twice in a request, in whichever turns (reports of 2026)."""
    seen: set[str] = set()
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            if call.get("id", "") in seen:
                yield f"Invalid request: tool_call_id {call.get('id')} is duplicated"
            seen.add(call.get("id", ""))


def _media(body: Json) -> Iterator[str]:
    for part in _parts(body["messages"]):
        if "prompt_cache_breakpoint" in part:
            yield "Invalid request: prompt_cache_breakpoint is not supported"
        kind = part.get("type")
        if kind not in ("text", "image_url", "video_url"):
            yield f"Invalid request: unsupported content type {kind}"
        media = part.get(kind or "", "")
        url = media.get("url", "") if isinstance(media, dict) else media
        if kind != "text" and not url.startswith(("data:", "ms://")):
            yield f"Invalid request: unsupported image url: {url}"


def _parts(messages: list[Json]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if isinstance(message.get("content"), list):
            yield from message["content"]
