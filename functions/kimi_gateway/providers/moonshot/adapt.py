"""Adapts a checked request to one model: fields that the vendor refuses are dropped, capped or mapped.

The rules are columns of the catalog; docs/contract.md, Models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import repair, window
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.moonshot import reasoning
from kimi_gateway.providers.moonshot.reasoning import MissingReasoning
from kimi_gateway.providers.moonshot.restoring import Renamed
from kimi_gateway.providers.moonshot.schema import clean
from kimi_gateway.providers.moonshot.tools import adapt_tools

# Clients' words for the effort, and the three that the platform knows (2026-08-17).
_EFFORT = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "max",
    "max": "max",
    "ultra": "max",
}
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Adapted:
    """The body for the upstream, always streamed and with usage.

    `ignored` are the dropped and lowered fields; `renamed` the tools and arguments with other names in the
    body; `missing` the messages that lost reasoning which the model needs; `remembers` whether the answer may
    bring such reasoning.
    """

    body: dict[str, Any] = field(repr=False)
    ignored: tuple[str, ...] = ()
    renamed: Renamed = field(default_factory=Renamed)
    missing: Sequence[MissingReasoning] = ()
    remembers: bool = False


def adapt(ask: ChatRequest, model: Model) -> Adapted:
    """Raises InvalidRequest if the output limit exceeds the model's, or if a tool cannot be offered."""
    body = dict(ask.body)
    ignored = [name for name in body if name in model.fixed]
    for name in ignored:
        del body[name]
    if model.thinking == "always":
        ignored += [name for name in ("thinking", "reasoning_effort") if name in body]
    thinks = _THINKING[model.thinking](body, model)
    ignored += _limit_output(body, model, thinks)
    renamed, opened = adapt_tools(body, model, thinks)
    named = (*(ask.names.get(name, name) for name in ignored), *opened)
    style = body.get("response_format", _NOTHING).get("json_schema", _NOTHING)
    if model.mfjs and isinstance(style.get("schema"), dict):
        body["response_format"] = _clean_style(body["response_format"])
    body.update(model=model.upstream, stream=True, stream_options={"include_usage": True})
    remembers = thinks and model.replay != "none"
    missing = reasoning.lacking(ask.body["messages"]) if remembers else ()
    body["messages"] = repair.distinct(body["messages"])  # after the look-up, which uses the first id
    return Adapted(body, named, renamed, missing, remembers and _offers_tools(body))


def _offers_tools(body: dict[str, Any]) -> bool:
    return bool(body.get("tools")) or any("tools" in message for message in body["messages"])


def _clean_style(style: dict[str, Any]) -> dict[str, Any]:
    """Translate the schema of a JSON answer."""
    described = style["json_schema"]
    cleaned = clean.clean(described["schema"], "response_format.json_schema.schema")
    if cleaned is described["schema"]:
        return style
    return {**style, "json_schema": {**described, "schema": cleaned}}


def _switch(body: dict[str, Any], model: Model) -> bool:
    """Thinking on or off; an effort other than "none" turns it on."""
    effort, asked = body.pop("reasoning_effort", None), body.get("thinking")
    if asked is not None:
        on = bool(asked["type"] != "disabled")
    else:
        on = model.thinks if effort is None else effort != "none"
    kept = {"keep": asked["keep"]} if asked and "keep" in asked else {}
    body["thinking"] = {"type": "enabled" if on else "disabled", **kept}
    return on


def _always(body: dict[str, Any], model: Model) -> bool:
    """Always think; drop `thinking` and efforts, which these models refuse."""
    body.pop("thinking", None)
    body.pop("reasoning_effort", None)
    return True


def _effort(body: dict[str, Any], model: Model) -> bool:
    """These models have no `thinking`: off becomes the lowest effort, a budget becomes an effort."""
    asked, effort = body.pop("thinking", {}), body.get("reasoning_effort")
    if effort is not None:
        body["reasoning_effort"] = _EFFORT.get(effort, effort)
    elif asked.get("type") == "disabled":
        body["reasoning_effort"] = "low"
    elif "budget_tokens" in asked:
        budget = asked["budget_tokens"]
        body["reasoning_effort"] = "low" if budget <= 4_096 else "high" if budget <= 16_384 else "max"
    return True


def _free(body: dict[str, Any], model: Model) -> bool:
    return False


_THINKING = {"switch": _switch, "always": _always, "effort": _effort, "free": _free}


def _limit_output(body: dict[str, Any], model: Model, thinks: bool) -> list[str]:
    """One output limit under the platform's newer name, lowered to the model's cap. Returns the client's
    field if that lowers it."""
    name, limit = window.take_limit(body)
    if limit is None and model.default_output is not None:
        limit = model.max_output if thinks else model.default_output
    if limit is None:
        return []
    if limit > model.refuse_output:
        raise InvalidRequest(f"{name}: {model.id} takes at most {model.refuse_output}", param=name)
    return window.set_limit(body, name, limit, model)
