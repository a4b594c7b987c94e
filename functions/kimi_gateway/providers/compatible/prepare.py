"""Adapts a chat to a vendor by its row, and renders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.catalog.vendor import Vendor, VendorModel
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import repair, tuning, window
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.moonshot import reasoning
from kimi_gateway.providers.moonshot.reasoning import Lost, MissingReasoning, ReasoningCollector
from kimi_gateway.providers.moonshot.restoring import Renamed, Restorer
from kimi_gateway.providers.moonshot.tools import adapt_tools
from kimi_gateway.providers.provider import Call, Missing, Tap

Json = dict[str, Any]
MOST_TOOLS = 10_000  # the vendors' own bounds are not known
_THINKING = ("thinking", "reasoning_effort")
_PLATFORM_PARTS = ("partial", "tools")  # members of messages that only the platform knows
_IN_WORDS = "Answer with one JSON object and nothing else."


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """See `Prepared`."""

    chat: ChatRequest = field(repr=False)
    model: Model
    vendor: Vendor
    body: Json = field(repr=False)
    ignored: tuple[str, ...]
    renamed: Renamed
    lacking: Sequence[MissingReasoning]

    @property
    def missing(self) -> Missing | None:
        return Lost(self.body, self.lacking, self.vendor.replay) if self.lacking else None

    def call(self) -> Call:
        chat, body = self.chat, rendered(self.body, self.vendor)
        free = chat.free
        if free:
            free |= {sent for sent, name in self.renamed.tools.items() if name in free}
        payload = jsonio.rewrite(body, chat.source) if chat.source else jsonio.dumps(body)
        return Call(self.model, self.body, payload, free=free, streamed=self.chat.stream)

    def taps(self) -> list[Tap]:
        taps: list[Tap] = [Restorer(self.renamed)] if self.renamed else []
        if self.vendor.replay != "none" and self.body.get("tools"):
            taps.append(ReasoningCollector(self.chat.body["messages"]))
        return taps


def prepare(chat: ChatRequest, model: Model, vendor: Vendor) -> PreparedChat:
    """See `Provider.prepare`."""
    known = vendor.model(model.upstream) or VendorModel(model.upstream)
    body = dict(chat.body)
    dropped = [name for name in body if name in vendor.drop]
    if not known.tools:
        dropped += [name for name in ("tools", "tool_choice") if name in body]
    for name in dropped:
        del body[name]
    dropped += think(body, known.thinking or vendor.thinking, known.efforts or vendor.efforts)
    if "tool_choice" in body and not vendor.choices:
        dropped += _unchosen(body)
    dropped += _limit(body, model)
    renamed, opened = adapt_tools(body, model, model.thinks, MOST_TOOLS)
    if style_in_words(body, vendor):
        dropped.append("response_format")
    _extend(body, {**vendor.extra, **known.fields})
    body.update(model=model.upstream, stream=True, stream_options={"include_usage": True})
    lacking = reasoning.lacking(chat.body["messages"]) if vendor.replay != "none" else ()
    body["messages"] = repair.distinct(body["messages"])
    named = (*(chat.names.get(name, name) for name in dropped), *opened)
    return PreparedChat(chat, model, vendor, body, tuple(dict.fromkeys(named)), renamed, lacking)


def think(body: Json, way: str, efforts: Sequence[str]) -> list[str]:
    """Ask for thinking in the vendor's way. Returns the fields that have no counterpart there."""
    if way == "free":
        return []
    asked, effort = body.pop("thinking", None), body.pop("reasoning_effort", None)
    given = [name for name, value in zip(_THINKING, (asked, effort), strict=True) if value is not None]
    if way in ("never", "always") or not given:
        return given
    budget = asked.get("budget_tokens") if asked else None
    on = asked["type"] != "disabled" if asked is not None else effort != "none"
    if way == "enable":
        body["enable_thinking"] = on
        if on and budget is not None:
            body["thinking_budget"] = budget
    elif way == "effort":
        body["reasoning_effort"] = _nearest(effort or ("none" if not on else _of_budget(budget)), efforts)
    else:
        body["thinking"] = {"type": ("enabled" if way == "switch" else "adaptive") if on else "disabled"}
        if on and effort is not None and efforts:
            body["reasoning_effort"] = _nearest(effort, efforts)
    return []


def _of_budget(budget: int | None) -> str:
    if budget is None:
        return "high"
    return "low" if budget <= 4_096 else "high" if budget <= 16_384 else "max"


def _nearest(effort: str, efforts: Sequence[str]) -> str:
    """The vendor's word for at least this effort, else its highest one."""
    if effort in efforts or effort not in tuning.EFFORTS:
        return effort
    rank = tuning.EFFORTS.index(effort)
    above = [word for word in efforts if word in tuning.EFFORTS and tuning.EFFORTS.index(word) >= rank]
    return above[0] if above else efforts[-1]


def _unchosen(body: Json) -> list[str]:
    """The vendor knows no `tool_choice`: "none" takes the tools away, others are left to the model and its
    instructions."""
    if body["tool_choice"] == "none":
        body.pop("tools", None)
        del body["tool_choice"]
        return []
    if body["tool_choice"] == "auto":
        del body["tool_choice"]
        return []
    return ["tool_choice"]


def _limit(body: Json, model: Model) -> list[str]:
    """One output limit, lowered to the model's. Its name is the pivot's until it is rendered. Returns the
    client's field if that lowers it."""
    name, limit = window.take_limit(body)
    return [] if limit is None else window.set_limit(body, name, limit, model)


def style_in_words(body: Json, vendor: Vendor) -> bool:
    """A `response_format` that the vendor does not know goes into words. Returns whether it was dropped."""
    style = body.get("response_format")
    if (
        not style
        or style["type"] == "text"
        or style["type"] == vendor.schema
        or vendor.schema == "json_schema"
    ):
        return False
    words = _IN_WORDS
    if style["type"] == "json_schema" and (schema := style["json_schema"].get("schema")) is not None:
        words += f" It follows this JSON schema: {jsonio.dumps(schema).decode()}"
    at = len(body["messages"]) - bool(body["messages"][-1].get("partial"))
    messages = body["messages"]
    body["messages"] = [*messages[:at], {"role": "system", "content": words}, *messages[at:]]
    if vendor.schema is None:
        del body["response_format"]
        return True
    body["response_format"] = {"type": vendor.schema}
    return False


def _extend(body: Json, fields: Mapping[str, Any]) -> None:
    """Add the fields that are always sent. Members of an object may be the client's. Raises
    InvalidRequest."""
    for name, value in fields.items():
        given = body.get(name)
        if isinstance(value, Mapping) and given is not None:
            if not isinstance(given, dict):
                raise InvalidRequest(f"{name}: must be an object", param=name)
            value = {**value, **given}
        body[name] = dict(value) if isinstance(value, Mapping) else value


def rendered(body: Json, vendor: Vendor) -> Json:
    """The body in the vendor's names."""
    sent = dict(body)
    if vendor.limit != "max_completion_tokens" and "max_completion_tokens" in sent:
        sent[vendor.limit] = sent.pop("max_completion_tokens")
    if sent.get("tool_choice") is not None and not vendor.choices:
        del sent["tool_choice"]
    replay = _REPLAY[vendor.reasoning] if vendor.replay != "none" else None
    sent["messages"] = [_message(message, replay) for message in body["messages"]]
    return sent


def _message(message: Json, replay: Callable[[Json, str], None] | None) -> Json:
    if "reasoning_content" not in message and not any(name in message for name in _PLATFORM_PARTS):
        return message
    sent = {name: value for name, value in message.items() if name not in _PLATFORM_PARTS}
    earlier = sent.pop("reasoning_content", None)
    if earlier and replay is not None:
        replay(sent, earlier)
    return sent


def _as_tags(message: Json, text: str) -> None:
    content = message.get("content")
    told = f"<think>{text}</think>\n\n"
    if isinstance(content, list):
        message["content"] = [{"type": "text", "text": told}, *content]
    else:
        message["content"] = told + (content or "")


def _as_details(message: Json, text: str) -> None:
    message["reasoning_details"] = [{"type": "reasoning.text", "text": text}]


def _as_reasoning(message: Json, text: str) -> None:
    message["reasoning"] = text


def _as_it_is(message: Json, text: str) -> None:
    message["reasoning_content"] = text


_REPLAY: Mapping[str, Callable[[Json, str], None]] = {
    "think-tags": _as_tags,
    "reasoning_details": _as_details,
    "reasoning": _as_reasoning,
    "reasoning_content": _as_it_is,
}
