"""A Responses request: known fields are checked, features that no upstream has are refused by name, and the
rest becomes a chat. Ranges and decisions: docs/contract.md, Responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses import web_search
from kimi_gateway.dialects.responses.items import Conversation
from kimi_gateway.dialects.responses.references import Earlier
from kimi_gateway.dialects.responses.tools import Toolbox
from kimi_gateway.pivot import fields, named, placement, tuning
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.request import ChatRequest, digest_of, model_name

_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class Translation:
    """A request in the inner format, with what its answer needs. `body` is the client's without nulls.
    `messages` are the conversation without `instructions`; `called` the client's ids of its calls."""

    chat: ChatRequest
    body: dict[str, Any] = field(repr=False)
    messages: list[dict[str, Any]] = field(repr=False)
    toolbox: Toolbox = field(repr=False)
    called: list[str] = field(default_factory=list, repr=False)


def checked(raw: bytes, otherwise: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The body, each known field checked by itself. `otherwise` has values for missing fields. Raises
    InvalidRequest."""
    body = fields.drop_nulls(fields.json_object(raw).values, _FIELDS)
    for name in ("model", "input"):
        if name not in body and name not in otherwise:
            fail(name, "is required")
    fields.apply(body, _FIELDS)
    return {**otherwise, **body}


def chat_of(body: dict[str, Any], given: list[Any] | str, earlier: Earlier | None) -> Translation:
    """The chat. `given` is the input without references. Raises InvalidRequest."""
    body, unknown = {**body}, list[str]()
    tuning.apply(body, _TUNED, unknown)
    toolbox = Toolbox()
    toolbox.add(body.get("tools", []), "tools")
    conversation = Conversation(earlier.messages if earlier else (), toolbox)
    if earlier:
        placement.recalled(earlier.messages, "previous_response_id")
        conversation.add(earlier.output, "previous_response_id")
    conversation.add([{"role": "user", "content": given}] if isinstance(given, str) else given, "input")
    messages, repaired = conversation.end()
    if not messages:
        fail("input", "has nothing to answer")
    sent: dict[str, Any] = {"model": body["model"], "messages": messages}
    if body.get("instructions"):
        sent["messages"] = [{"role": "system", "content": body["instructions"]}, *messages]
    choice = toolbox.choose(body["tool_choice"]) if "tool_choice" in body else None
    if toolbox.tool_set.placed:
        sent["tools"] = toolbox.tool_set.tools
        if choice is not None:
            sent["tool_choice"] = choice
    for name, (sent_as, value) in _SENT.items():
        if name in body and (found := value(body[name])) is not None:
            sent.setdefault(sent_as, found)
    search = named.apply(body["model"], sent, web_search.options(body))
    hosted = () if search is None else search.asked_by
    left_out = [name for name in toolbox.tool_set.ignored if name not in hosted]
    unsent = [name for name in _UNSENT if name in body]
    if _LOGPROBS in body.get("include", ()) or "top_logprobs" in body:
        sent["logprobs"] = True
    chat = ChatRequest(
        model=body["model"],
        body=sent,
        stream=body.get("stream", False),
        choices=1,
        stops=(),
        names=_NAMES | toolbox.tool_set.places,
        ignored=tuple(dict.fromkeys((*left_out, *repaired, *unknown, *unsent))),
        free=toolbox.free,
        search=search,
    )
    called = [*(earlier.called if earlier else ()), *conversation.ids]
    return Translation(chat, body, messages, toolbox, called)


# The client's names for fields that model rules may refuse.
_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "reasoning_effort": "reasoning.effort",
}


# Accepted fields without a counterpart upstream, as in Chat Completions.
_UNSENT = ("service_tier", "prompt_cache_retention")


def _same(value: Any) -> Any:
    return value


def _format(text: dict[str, Any]) -> dict[str, Any] | None:
    form = text.get("format") or {}
    if form.get("type") == "json_schema":
        named = {"name": form.get("name") or "output"}
        kept = {
            name: form[name] for name in ("description", "schema", "strict") if form.get(name) is not None
        }
        return {"type": "json_schema", "json_schema": named | kept}
    return {"type": "json_object"} if form.get("type") == "json_object" else None


# Tuning fields, which never cause a refusal. An answer shows the mapped words.
_TUNED = {
    "reasoning.effort": tuning.effort,
    "reasoning.summary": tuning.one_of(tuning.SUMMARIES, "auto"),
    "text.verbosity": tuning.one_of(tuning.VERBOSITIES, "medium"),
    "truncation": tuning.one_of(tuning.TRUNCATIONS, "disabled"),
}

# Fields that are sent upstream, with their names there. If two map to one name, the first counts.
_SENT: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "max_output_tokens": ("max_completion_tokens", _same),
    "temperature": ("temperature", _same),
    "top_p": ("top_p", _same),
    "top_logprobs": ("top_logprobs", _same),
    "prompt_cache_key": ("prompt_cache_key", _same),
    "safety_identifier": ("safety_identifier", _same),
    "user": ("safety_identifier", digest_of),
    "reasoning": ("reasoning_effort", lambda reasoning: reasoning.get("effort")),
    "text": ("response_format", _format),
}


def _input(value: Any, where: str) -> None:
    if type(value) is not str:
        if type(value) is not list:
            fail(where, "must be a string or an array of items")
        if not value:
            fail(where, "must not be empty")


def _unsupported(instead: str) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not False:
            fail(where, f"is not supported: {instead}")

    return check


def _text_format(value: Any, where: str) -> None:
    fields.mapping(value, where)
    fields.one_of("text", "json_object", "json_schema")(value.get("type"), f"{where}.type")
    if value["type"] == "json_schema":
        fields.mapping(value.get("schema"), f"{where}.schema")
        fields.members({"name": fields.string, "description": fields.string, "strict": fields.boolean})(
            value, where
        )


def _strings(value: Any, where: str) -> None:
    fields.array(value, where)
    for index, word in enumerate(value):
        fields.string(word, f"{where}.{index}")


_FIELDS: dict[str, Check] = {
    "model": model_name,
    "input": _input,
    "background": _unsupported("the answer comes with the request, streamed or whole"),
    "conversation": _unsupported("send the items, or previous_response_id"),
    "prompt": _unsupported("there are no stored prompts here"),
    "instructions": fields.string,
    "previous_response_id": fields.string,
    "tools": fields.array,
    "reasoning": fields.members({"effort": fields.string, "summary": fields.string}),
    "text": fields.members({"format": _text_format, "verbosity": fields.string}),
    "include": _strings,
    "max_output_tokens": fields.integer(1),
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "top_logprobs": fields.integer(0, 20),
    "stream": fields.boolean,
    "store": fields.boolean,
    "parallel_tool_calls": fields.boolean,
    "truncation": fields.string,
    "prompt_cache_retention": fields.string,
    "metadata": fields.mapping,
    "prompt_cache_key": fields.string,
    "safety_identifier": fields.string,
    "user": fields.string,
    # accepted, without a counterpart upstream
    "tool_choice": lambda value, where: None,  # checked when the tools are known
    "stream_options": fields.mapping,
    "service_tier": fields.string,
    "max_tool_calls": fields.integer(1),
}
