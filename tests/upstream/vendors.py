"""Other vendors than the platform, each with its own ways, as their pages and clients describe them: what
each takes, how it reasons, counts, lists its models and refuses. Written apart from the gateway's rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from upstream import kimi
from upstream.server import Request, ScriptedUpstream
from upstream.steps import Reply, Sse, Status, Step

Json = dict[str, Any]
TEXT, REASONING = "Hello from a sibling: 你好 👋", "They greet me; I greet back."
COMMON = frozenset(
    ("model", "messages", "stream", "stream_options", "temperature", "top_p", "stop", "tools", "max_tokens")
)


@dataclass(frozen=True)
class Ways:
    """`takes`: fields besides the common ones. `needs`: fields without which it does otherwise. `choices`:
    its values of tool_choice. `reasons`: the field of its reasoning while `needs` are there. `around`:
    members of each chunk. `usage`: "asked" or "always". `models`: None has no list. `parts`: of messages.
    `bases`: addresses that need a token of their own."""

    bases: Sequence[str]
    takes: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    needs: Mapping[str, Any] = field(default_factory=dict)
    choices: frozenset[str] = frozenset(("auto",))
    reasons: str = "reasoning_content"
    styles: frozenset[str] = frozenset(("text", "json_object"))
    around: Mapping[str, Any] = field(default_factory=dict)
    usage: str = "asked"
    models: Sequence[str] | None = ()
    parts: frozenset[str] = frozenset(("text",))

    @property
    def fields(self) -> frozenset[str]:
        return (COMMON | self.takes | set(self.needs)) - self.without


WAYS: Mapping[str, Ways] = {
    "stepfun": Ways(
        ("ai", "com"), frozenset(("reasoning_effort", "response_format", "tool_choice")),
        needs={"reasoning_format": "deepseek-style"}, models=("step-5-preview", "step-3.7-flash"),
        choices=frozenset(("auto", "none", "required", "named")),
        styles=frozenset(("text", "json_object", "json_schema")), parts=frozenset(("text", "image_url")),
    ),
    "qwen": Ways(
        ("intl", "cn", "us"),
        frozenset(("enable_thinking", "thinking_budget", "response_format", "tool_choice")),
        choices=frozenset(("auto", "none")), models=("qwen3.8-max",),
        styles=frozenset(("text", "json_object", "json_schema")),
        parts=frozenset(("text", "image_url", "video_url")),
    ),
    "glm": Ways(
        ("bigmodel", "zai"),
        frozenset(("thinking", "reasoning_effort", "response_format", "tool_choice", "meta")),
        models=("glm-5.3",),
    ),
    "minimax": Ways(
        ("io", "com"), frozenset(("thinking", "max_completion_tokens")), without=frozenset(("max_tokens",)),
        needs={"reasoning_split": True}, choices=frozenset(), reasons="reasoning_details",
        around={"base_resp": {"status_code": 0, "status_msg": ""}}, models=("MiniMax-M3",),
        parts=frozenset(("text", "image_url")),
    ),
    "spark": Ways(
        ("v1", "v2", "x2"), frozenset(("tool_choice",)), models=None, usage="always",
        around={"code": 0, "message": "Success", "sid": "cha000"},
    ),
    "metaso": Ways(("cn",), models=None, usage="always", reasons="", choices=frozenset()),
}  # fmt: skip

# One model of each row, by what the row must do for it; the second free API's own name is among them.
MODELS = {
    "stepfun": "stepfun/step-5-preview",
    "qwen": "qwen/qwen3.8-max",
    "glm": "glm/glm-5.3",
    "minimax": "minimax/MiniMax-M3",
    "spark": "spark/spark-x",
    "metaso": "metaso/fast",
    "emohaa": "emohaa",
}


@dataclass(frozen=True)
class Chat:
    """One vendor's chat endpoint. `calls`: tools that it calls instead of an answer in words."""

    ways: Ways
    tokens: frozenset[str]
    calls: kimi.Tools = ()
    text: str = TEXT
    tags: bool = False  # although it was asked for a field of its own

    def reply(self, request: Request) -> Reply:
        if request.token not in self.tokens:
            return Status(401, {"error": {"message": "Unauthorized", "code": "invalid_api_key"}}).reply(
                request
            )
        refused = _refusal(self.ways, request.body)
        if refused:
            error = {"message": refused, "type": "invalid_request_error"}
            return Status(400, {"error": error}).reply(request)
        return Sse(self.events(request.body)).reply(request)

    def events(self, body: Json) -> list[Json]:
        asked = self.ways.usage == "always" or (body.get("stream_options") or {}).get("include_usage")
        reasoning = REASONING if self.ways.reasons else None
        events = kimi.chat_events(self.text, reasoning, self.calls, model=body["model"])
        last = events[-1]
        usage = last["choices"][0].pop("usage")
        del last["usage"], usage["cached_tokens"]
        if asked and self.ways.usage == "asked":
            events.append({**last, "choices": [], "usage": usage})
        elif asked:
            last["usage"] = usage
        split = all(body.get(name) == value for name, value in self.ways.needs.items())
        for event in events:
            event.update(self.ways.around)
            for choice in event["choices"]:
                if (text := choice["delta"].pop("reasoning_content", None)) is not None:
                    choice["delta"] |= _reasoned(text, self.ways.reasons if split else "content")
        return events


def _reasoned(text: str, way: str) -> Json:
    if way == "reasoning_details":
        return {"reasoning_details": [{"type": "reasoning.text", "text": text}], "content": ""}
    return {way: text}


def _refusal(ways: Ways, body: Json) -> str:
    """What this vendor says to a body; empty if it takes it."""
    if unknown := sorted(body.keys() - ways.fields):
        return f"unknown fields: {', '.join(unknown)}"
    choice = body.get("tool_choice")
    if choice is not None and ("named" if isinstance(choice, dict) else choice) not in ways.choices:
        return f"tool_choice {choice!r} is not supported"
    if (style := body.get("response_format")) and style["type"] not in ways.styles:
        return f"response_format {style['type']} is not supported"
    for message in body["messages"]:
        if message["role"] not in ("system", "user", "assistant", "tool"):
            return f"role {message['role']}"
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if part["type"] not in ways.parts:
                return f"parts of type {part['type']} are not supported"
        if message.keys() & {"partial", "tools"}:
            return "a message has unknown members"
    return ""


@dataclass(frozen=True)
class List:
    ids: Sequence[str]
    tokens: frozenset[str]

    def reply(self, request: Request) -> Reply:
        if request.token not in self.tokens:
            return Status(401, {"error": {"message": "no", "code": "1000"}}).reply(request)
        return Status(200, {"object": "list", "data": [{"id": id} for id in self.ids]}).reply(request)


def token_of(vendor: str, base: str) -> str:
    return f"tok-{vendor}-{base}-0123456789"


def address(up: ScriptedUpstream, vendor: str, base: str) -> str:
    return f"http://127.0.0.1:{up.port}/{vendor}/{base}"


def chat_path(vendor: str, base: str) -> str:
    return f"/{vendor}/{base}/chat/completions"


def serve(up: ScriptedUpstream) -> None:
    """All vendors at their right answers, each behind its own path, with a token for each address."""
    for vendor, ways in WAYS.items():
        for base in ways.bases:
            tokens = frozenset((token_of(vendor, base),))
            up.at(chat_path(vendor, base), Chat(ways, tokens))
            if ways.models is not None:
                up.at(f"/{vendor}/{base}/models", List(ways.models, tokens))


def sent_to(up: ScriptedUpstream, vendor: str) -> list[Request]:
    return [request for request in up.requests if request.path.startswith(f"/{vendor}/")]


def last(up: ScriptedUpstream, vendor: str) -> Json:
    body: Json = json.loads(sent_to(up, vendor)[-1].raw)
    return body


def answering(up: ScriptedUpstream, vendor: str, step: Step) -> None:
    """Let each address of a vendor answer like this."""
    for base in WAYS[vendor].bases:
        up.at(chat_path(vendor, base), step)
