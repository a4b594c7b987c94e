"""Translates a Messages request into the pivot; the treatment of each field is data. docs/contract.md,
Messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.messages import history, searches, tools, web_tools
from kimi_gateway.pivot import fields, named, tuning
from kimi_gateway.pivot import request as pivot
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.request import ChatRequest, stop_length
from kimi_gateway.pivot.search import SearchOptions

MOST_STOPS = 4
LEAST_OUTPUT = 1_024  # tokens; with less room an error is better, because Claude Code then compacts (2026-11)

ThinkingDisplay = Literal["shown", "sealed", "hidden"]


@dataclass(frozen=True, slots=True)
class MessagesRequest(ChatRequest):
    """`seals` are the signatures of thinking blocks in the history, by their text; the native endpoint needs
    them."""

    seals: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Translation:
    """A request in the inner format, with what its answer needs. `thinking`: shown in full, as an
    empty block that can be replayed (display "omitted"), or hidden, if the client wants no thinking from a
    model that always thinks. `one_call`: no parallel tool calls. `search`: the query, if the request is only
    a web search."""

    chat: MessagesRequest
    thinking: ThinkingDisplay
    one_call: bool
    search: str | None = None


@dataclass(slots=True)
class _Draft:
    """The pivot's body under construction. `ignored` collects dropped fields, `names` the client's names."""

    body: dict[str, Any] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    ignored: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # the client's, by the pivot's


def read(raw: bytes, counting: bool = False) -> Translation:
    """Parse a request. `counting`: no answer is wanted, so `max_tokens` is not required. Raises
    InvalidRequest naming the field."""
    body = fields.drop_nulls(fields.json_object(raw).values, _CHECKS)
    for name in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if name not in body:
            fail(name, "is required")
    fields.apply(body, _CHECKS)
    draft = _Draft()
    tuning.apply(body, _TUNED, draft.ignored)
    for name, value in body.items():
        if name in _DROPPED:
            draft.ignored.append(name)
        elif name in _TAKEN:
            _TAKEN[name](draft, value)
        elif name not in _TOGETHER:
            draft.body[name] = value
    unread: list[str] = []
    seals: dict[str, str] = {}
    draft.body["messages"] = history.system(body.get("system", []), "system") + history.messages(
        body["messages"], "messages", unread, seals
    )
    search = web_tools.options(body, draft.ignored)
    _take_tools(draft, body, search)
    draft.body = fields.drop_nulls(draft.body, pivot.BESIDE_MESSAGES)
    fields.apply(draft.body, pivot.BESIDE_MESSAGES)
    if draft.body["messages"][-1].get("partial") and "response_format" in draft.body:
        fail("output_config.format", "does not go together with a message that the assistant has begun")
    draft.ignored += [*pivot.tune(draft.body), *unread]
    search = named.apply(body["model"], draft.body, search)
    chat = MessagesRequest(
        model=body["model"],
        stream=body.get("stream", False),
        choices=1,
        stops=draft.stops,
        body=draft.body,
        names=draft.names,
        ignored=tuple(dict.fromkeys(draft.ignored)),
        seals=seals,
        least_output=LEAST_OUTPUT,
        search=search,
        evident=True,
    )
    one_call = bool(body.get("tool_choice", {}).get("disable_parallel_tool_use"))
    return Translation(chat, _thinking_display(body), one_call, searches.wanted(body))


def _take_tools(draft: _Draft, body: dict[str, Any], search: SearchOptions | None) -> None:
    tool_set = tools.functions(body.get("tools", []), "tools")
    hosted = () if search is None else search.asked_by
    draft.ignored += [name for name in tool_set.ignored if name not in hosted]
    draft.names |= tool_set.places
    if tool_set.placed:
        draft.body["tools"] = tool_set.tools
    if "tool_choice" in body:
        choice = tools.choice(body["tool_choice"], "tool_choice", tool_set)
        if choice is not None:
            draft.body["tool_choice"] = choice


def _thinking_display(body: dict[str, Any]) -> ThinkingDisplay:
    thinking = body.get("thinking", {})
    if thinking.get("type") == "disabled":
        return "hidden"
    return "sealed" if thinking.get("display") == "omitted" else "shown"


def _thinking(draft: _Draft, value: dict[str, Any]) -> None:
    budget = {"budget_tokens": value["budget_tokens"]} if value.get("budget_tokens") is not None else {}
    draft.body["thinking"] = {"type": value["type"], **budget}


def _output_config(draft: _Draft, value: dict[str, Any]) -> None:
    if value.get("effort") is not None:
        draft.body["reasoning_effort"] = value["effort"]
    if value.get("format") is not None:
        _output_format(draft, value["format"], "output_config.format")


def _output_format(draft: _Draft, value: dict[str, Any], name: str = "output_format") -> None:
    schema = {"name": "output", "schema": value["schema"]}
    draft.body["response_format"] = {"type": "json_schema", "json_schema": schema}
    draft.names["response_format.json_schema"] = name


def _metadata(draft: _Draft, value: dict[str, Any]) -> None:
    """The user's id. Claude Code makes one for each session, so it also serves as a cache key."""
    if value.get("user_id") is not None:
        digest = pivot.digest_of(value["user_id"])
        draft.body["safety_identifier"] = digest
        draft.body.setdefault("prompt_cache_key", digest)


def _cache_control(draft: _Draft, value: dict[str, Any]) -> None:
    """The lifetime of the cache. Five minutes is the vendor's default; models without a choice drop the
    field."""
    if value.get("ttl") not in (None, "5m"):
        draft.body["prompt_cache_options"] = {"mode": "implicit", "ttl": value["ttl"]}


def _stop_sequences(draft: _Draft, value: list[str]) -> None:
    """Stop strings are found by the gateway, because the vendor does not say which one it found."""
    draft.stops = tuple(dict.fromkeys(value))


_TAKEN: dict[str, Callable[[_Draft, Any], None]] = {
    "cache_control": _cache_control,
    "metadata": _metadata,
    "output_config": _output_config,
    "output_format": _output_format,  # its older name
    "stop_sequences": _stop_sequences,
    "thinking": _thinking,
}
# Read together with other fields, or for the gateway itself.
_TOGETHER = frozenset(("messages", "system", "tools", "tool_choice", "model", "stream"))
# Fields without a meaning upstream, which are dropped: Anthropic's own (SDK 2.13, 2026-11), and those of Chat
# Completions that would change the shape of the answer. Other fields are passed on.
_DROPPED = frozenset(
    (
        "betas", "billing_policy", "compaction", "container", "context_management", "diagnostics",
        "fallback_credit_token", "fallbacks", "inference_geo", "mcp_servers", "service_tier", "speed",
        "thread", "top_k", "user_profile_id", "workspace_id",
        "logprobs", "n", "stop", "stream_options", "top_logprobs", "user",
    )
)  # fmt: skip


def _check_stops(value: Any, where: str) -> None:
    fields.array(value, where)
    if len(value) > MOST_STOPS:
        fail(where, f"may have at most {MOST_STOPS} strings")
    for index, stop in enumerate(value):
        fields.string(stop, f"{where}.{index}")
        if not stop:
            fail(f"{where}.{index}", "must not be empty")
        stop_length(stop, f"{where}.{index}")


def _check_format(value: Any, where: str) -> None:
    fields.mapping(value, where)
    fields.one_of("json_schema")(value.get("type"), f"{where}.type")
    fields.mapping(value.get("schema"), f"{where}.schema")


def _check_thinking(value: Any, where: str) -> None:
    fields.members({"budget_tokens": fields.integer(1), "display": fields.string})(value, where)
    fields.string(value.get("type"), f"{where}.type")


# Tuning fields, which never cause a refusal.
_TUNED = {
    "thinking.type": tuning.thinking,
    "thinking.display": tuning.one_of(tuning.DISPLAYS, "summarized"),
    "output_config.effort": tuning.effort,
    "cache_control.type": tuning.one_of(("ephemeral",), "ephemeral"),
    "cache_control.ttl": tuning.lifetime,
}
_CHECKS: dict[str, Check] = {
    "model": pivot.model_name,
    "max_tokens": fields.integer(1),
    "stream": fields.boolean,
    "temperature": fields.number(0, 1),
    "top_p": fields.number(0, 1),
    "top_k": fields.integer(0),
    "stop_sequences": _check_stops,
    "metadata": fields.members({"user_id": fields.string}),
    "thinking": _check_thinking,
    "output_config": fields.members({"effort": fields.string, "format": _check_format}),
    "output_format": _check_format,
    "cache_control": fields.members({"type": fields.string, "ttl": fields.string}),
    "tool_choice": fields.mapping,
    "tools": fields.array,
    "system": lambda value, where: None,
    "messages": fields.array,
}
