"""Checks a Chat Completions request: known fields are checked, the rest is left unchanged.

Ranges and decisions: docs/contract.md, Request.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any

from kimi_gateway.catalog.names import DEFAULT
from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import fields, named, parts, repair, search_fields, tuning
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.search import SearchOptions

MAX_CHOICES = 4
LONGEST_STOP = 4096  # bytes
LONGEST_UPSTREAM_STOP = 32  # bytes; the platform's limit for one stop string


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `body` is the upstream's part of it; the other members are for the gateway.

    `stops` are stop strings that the gateway must find itself. `source` is the client's text, if the client
    wrote the pivot: unchanged members are forwarded in the client's own bytes. `names` are the client's names
    for fields of the body, if they differ. `ignored` names fields that are not sent upstream. `least_output`:
    an answer with fewer tokens is useless, unless the client asked for fewer. `free` names functions whose
    arguments are free text. `search`: the model may search the web. `evident`: the client's history brings
    the results of earlier searches along.
    """

    model: str
    body: dict[str, Any] = field(repr=False)
    stream: bool
    choices: int
    stops: tuple[str, ...]
    source: jsonio.Source | None = None
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()
    least_output: int = 1
    free: frozenset[str] = frozenset()
    search: SearchOptions | None = None
    evident: bool = False


def read(raw: bytes, earlier: Sequence[dict[str, Any]] = ()) -> ChatRequest:
    """Parse a request. The messages of `earlier`, of the conversation that it continues, are put before its
    own. Raises InvalidRequest naming the field."""
    source = fields.json_object(raw)
    body = fields.drop_nulls(source.values, _FIELDS)
    if "messages" not in body:
        fail("messages", "is required")
    body.setdefault("model", DEFAULT)
    fields.apply(body, _FIELDS)
    _check_together(body)
    search = search_fields.taken(body)
    sent = list(map(parts.outgoing, range(len(body["messages"])), body["messages"]))
    if all(map(operator.is_, sent, body["messages"])):
        sent = body["messages"]  # the same list, so that the client's own bytes are reused
    if earlier:
        sent = [*earlier, *sent[_repeated(earlier, sent) :]]
    place = partial(_later_place, len(earlier)) if earlier else _place
    body["messages"], mended = repair.repaired(sent, place)
    if not body["messages"]:
        fail("messages", "has only empty assistant messages")
    if "user" in body:
        body.setdefault("safety_identifier", digest_of(body.pop("user")))
    if body.get("tools") == []:
        del body["tools"]
        if body.get("tool_choice") in ("auto", "none"):
            del body["tool_choice"]
    body.pop("stream_options", None)  # the gateway sends its own upstream
    body.pop("conversation_id", None)  # the dialect reads it (dialects/chat/conversation.py)
    ignored = tune(body)
    search = named.apply(body["model"], body, search)
    one_choice(search, body.get("n", 1))
    return ChatRequest(
        model=body["model"],
        stream=body.pop("stream", False),
        choices=body.pop("n", 1),
        stops=_own_stops(body),
        body=body,
        source=source,
        ignored=(*ignored, *mended),
        search=search,
    )


def one_choice(search: SearchOptions | None, choices: int) -> None:
    """Several answers would search apart from each other, and each would cost. Raises InvalidRequest."""
    if search is not None and choices > 1:
        fail("n", "must be 1 in a request that searches the web")


def tune(body: dict[str, Any]) -> tuple[str, ...]:
    """Map unknown words of tuning fields to known ones, and drop fields without a counterpart upstream.
    Returns the names of both."""
    ignored = [name for name in _UNSENT if body.pop(name, None) is not None]
    tuning.apply(body, _TUNED, ignored)
    return tuple(ignored)


def digest_of(user: str) -> str:
    """The platform need not know the client's user."""
    return hashlib.sha256(user.encode()).hexdigest()


def _own_stops(body: dict[str, Any]) -> tuple[str, ...]:
    """Remove stop strings that are too long for the upstream; the gateway finds them."""
    stop = body.get("stop", ())
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    short = [text for text in stops if len(text.encode("utf-8", "replace")) <= LONGEST_UPSTREAM_STOP]
    if len(short) == len(stops):
        return ()
    if short:
        body["stop"] = short
    else:
        del body["stop"]
    return tuple(text for text in stops if text not in short)


def _repeated(earlier: Sequence[dict[str, Any]], sent: Sequence[dict[str, Any]]) -> int:
    """The number of system messages at the beginning that the conversation begins with already."""
    same = (one == other and one["role"] == "system" for one, other in zip(earlier, sent, strict=False))
    return next((place for place, equal in enumerate(same) if not equal), min(len(earlier), len(sent)))


def _later_place(earlier: int, message: int, call: int) -> str:
    return "conversation_id" if message < earlier else _place(message - earlier, call)


def _place(message: int, call: int) -> str:
    where = f"messages.{message}"
    return f"{where}.tool_call_id" if call == repair.RESULT else f"{where}.tool_calls.{call}.id"


def model_name(value: Any, where: str) -> None:
    fields.string(value, where)
    if not value.strip():
        fail(where, "must not be empty")


def _stop(value: Any, where: str) -> None:
    stops = [value] if isinstance(value, str) else value
    if type(stops) is not list or not all(type(text) is str for text in stops):
        fail(where, "must be a string or an array of strings")
    if len(stops) > 4:
        fail(where, "may have at most 4 strings")
    if not all(stops):
        fail(where, "must not contain an empty string")
    for index, text in enumerate(stops):
        stop_length(text, where if stops is not value else f"{where}.{index}")


def stop_length(text: str, where: str) -> None:
    if len(text) > LONGEST_STOP or len(text.encode("utf-8", "replace")) > LONGEST_STOP:
        fail(where, f"must be at most {LONGEST_STOP} bytes long")


_TALK = ("user", "assistant", "system", "developer")
_ROLES = fields.one_of("system", "developer", "user", "assistant", "tool")


def _messages(value: Any, where: str) -> None:
    fields.array(value, where)
    if not value:
        fail(where, "must not be empty")
    for index, message in enumerate(value):
        if _is_plain(message):
            continue
        here = f"{where}.{index}"
        fields.mapping(message, here)
        if "role" not in message:
            fail(f"{here}.role", "is required")
        _ROLES(message["role"], f"{here}.role")
        _content(message, here)
        fields.apply(fields.drop_nulls(message, _MESSAGE), _MESSAGE, f"{here}.")
        if message["role"] == "tool":
            fields.string(message.get("tool_call_id"), f"{here}.tool_call_id")
        if message.get("partial") and (message["role"] != "assistant" or index != len(value) - 1):
            fail(f"{here}.partial", "is allowed only in the last message, of the assistant")


def _is_plain(message: Any) -> bool:
    """Whether the message has only a role and a text, like most of a long history, so that no other check is
    needed."""
    return (
        type(message) is dict
        and len(message) == 2
        and type(message.get("content")) is str
        and message.get("role") in _TALK
    )


def _content(message: dict[str, Any], here: str) -> None:
    content, where = message.get("content"), f"{here}.content"
    if type(content) is list:
        for index, part in enumerate(content):
            parts.check(part, f"{where}.{index}")
    elif content is None:
        # The assistant's content may be missing; also that of a system message with tools (K3).
        if message["role"] in ("user", "tool") or (message["role"] != "assistant" and "tools" not in message):
            fail(where, "is required")
    elif type(content) is not str:
        fail(where, "must be a string or an array of parts")


def _tools(value: Any, where: str) -> None:
    fields.array(value, where)
    names = set()
    for index, tool in enumerate(value):
        here = f"{where}.{index}"
        fields.mapping(tool, here)
        fields.string(tool.get("type"), f"{here}.type")
        if tool["type"] != "function":
            continue
        fields.mapping(tool.get("function"), f"{here}.function")
        name = tool["function"].get("name")
        fields.apply(fields.drop_nulls(tool["function"], _FUNCTION), _FUNCTION, f"{here}.function.")
        fields.string(name, f"{here}.function.name")
        if name in names:
            fail(f"{here}.function.name", f"function name {name} is duplicated")
        names.add(name)


_FUNCTION: dict[str, Check] = {
    "description": fields.string,
    "strict": fields.boolean,
}


def _choice(value: Any, where: str) -> None:
    if type(value) is str:
        fields.one_of("auto", "none", "required")(value, where)
    else:
        fields.mapping(value, where)


def _thinking(value: Any, where: str) -> None:
    fields.mapping(value, where)
    fields.string(value.get("type"), f"{where}.type")
    fields.apply(value, {"budget_tokens": fields.integer(0)}, f"{where}.")


def _response_format(value: Any, where: str) -> None:
    fields.mapping(value, where)
    fields.one_of("text", "json_object", "json_schema")(value.get("type"), f"{where}.type")
    if value["type"] == "json_schema":
        fields.mapping(value.get("json_schema"), f"{where}.json_schema")


def _stream_options(value: Any, where: str) -> None:
    fields.mapping(value, where)
    if value.get("include_usage") is None:
        value.pop("include_usage", None)
    fields.apply(value, {"include_usage": fields.boolean}, f"{where}.")


def _check_together(body: dict[str, Any]) -> None:
    if "top_logprobs" in body and body.get("logprobs") is not True:
        fail("top_logprobs", "needs logprobs to be true")
    last, style = body["messages"][-1], body.get("response_format", {}).get("type")
    if last.get("partial") and style in ("json_object", "json_schema"):
        fail("response_format", f"{style} does not go together with a partial message")


def _tool_calls(value: Any, where: str) -> None:
    fields.array(value, where)
    for index, call in enumerate(value):
        here = f"{where}.{index}"
        fields.mapping(call, here)
        fields.apply(fields.drop_nulls(call, _CALL), _CALL, f"{here}.")


_CALL: dict[str, Check] = {
    "id": fields.string,
    "type": fields.string,
    "function": fields.members({"name": fields.string}),
}
_MESSAGE: dict[str, Check] = {
    "name": fields.string,
    "partial": fields.boolean,
    "reasoning_content": fields.string,
    "tool_call_id": fields.string,
    "tool_calls": _tool_calls,
    "tools": _tools,
}
_LIMIT = fields.integer(1)
# OpenAI's fields without a counterpart upstream.
_UNSENT = ("verbosity", "service_tier", "prompt_cache_retention")
_FIELDS: dict[str, Check] = {
    "model": model_name,
    "messages": _messages,
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "presence_penalty": fields.number(-2, 2),
    "frequency_penalty": fields.number(-2, 2),
    "max_tokens": _LIMIT,
    "max_completion_tokens": _LIMIT,
    "n": fields.integer(1, MAX_CHOICES),
    "stop": _stop,
    "stream": fields.boolean,
    "stream_options": _stream_options,
    "tools": _tools,
    "tool_choice": _choice,
    "response_format": _response_format,
    "thinking": _thinking,
    "reasoning_effort": fields.string,
    "logprobs": fields.boolean,
    "top_logprobs": fields.integer(0, 20),
    "user": fields.string,
    "prompt_cache_key": fields.string,
    "safety_identifier": fields.string,
    "prompt_cache_options": fields.members({"ttl": fields.string}),
    "conversation_id": fields.string,
    **dict.fromkeys(_UNSENT, fields.string),
}
_TUNED = {
    "reasoning_effort": tuning.effort,
    "thinking.type": tuning.thinking,
    "prompt_cache_options.ttl": tuning.lifetime,
}
# For dialects with their own checks of messages: checks of the fields that they pass on under the pivot's
# names.
BESIDE_MESSAGES = {name: check for name, check in _FIELDS.items() if name not in ("messages", "tools")}
