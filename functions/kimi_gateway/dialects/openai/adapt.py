"""A checked request made fit for one model: what the vendor refuses is dropped, capped or mapped.

The rules are columns of the catalog; docs/contract.md, Models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects.openai.request import ChatRequest
from kimi_gateway.errors import ContextLengthExceeded, InvalidRequest

# What clients call the effort, and the three words that the platform knows (2026-08-17).
_EFFORT = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
_NO_PARAMETERS = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Adapted:
    """The body for the upstream, always streamed and always with usage, and the fields left out of it."""

    body: dict[str, Any] = field(repr=False)
    ignored: tuple[str, ...]


def adapt(ask: ChatRequest, model: Model) -> Adapted:
    """Raises InvalidRequest where the output allowance is beyond the model's."""
    body = dict(ask.body)
    ignored = tuple(name for name in body if name in model.fixed)
    for name in ignored:
        del body[name]
    thinks = _THINKING[model.thinking](body, model)
    _limit_output(body, model, thinks)
    if thinks and model.replay and any(map(_lacks_reasoning, body["messages"])):
        body["messages"] = [
            {**message, "reasoning_content": " "} if _lacks_reasoning(message) else message
            for message in body["messages"]
        ]
    if any(map(_lacks_parameters, body.get("tools", ()))):
        body["tools"] = [
            {**tool, "function": {**tool["function"], "parameters": _NO_PARAMETERS}}
            if _lacks_parameters(tool)
            else tool
            for tool in body["tools"]
        ]
    body.update(model=model.upstream, stream=True, stream_options={"include_usage": True})
    return Adapted(body, ignored)


def fit(body: dict[str, Any], model: Model, input_tokens: int) -> None:
    """Lower the output allowance to what the input leaves of the window. Raises ContextLengthExceeded."""
    room = model.window - input_tokens
    if room < 1:
        raise ContextLengthExceeded(
            f"The input has about {input_tokens} tokens; {model.id} takes {model.window} with the output.",
            param="messages",
        )
    if body.get("max_completion_tokens", model.upstream_default) > room:
        body["max_completion_tokens"] = room


def _switch(body: dict[str, Any], model: Model) -> bool:
    """Thinking on or off; an effort counts as a wish to think, except "none"."""
    effort, asked = body.pop("reasoning_effort", None), body.get("thinking")
    if asked is not None:
        on = bool(asked["type"] != "disabled")
    else:
        on = model.thinks if effort is None else effort != "none"
    kept = {"keep": asked["keep"]} if asked and "keep" in asked else {}
    body["thinking"] = {"type": "enabled" if on else "disabled", **kept}
    return on


def _always(body: dict[str, Any], model: Model) -> bool:
    """These think with everything kept, and refuse to be told otherwise."""
    body.pop("thinking", None)
    body.pop("reasoning_effort", None)
    return True


def _effort(body: dict[str, Any], model: Model) -> bool:
    """`thinking` is no field of these models: off is the lowest effort, a budget is an effort."""
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


def _limit_output(body: dict[str, Any], model: Model, thinks: bool) -> None:
    """One allowance under the platform's newer name, lowered to the model's cap."""
    older = body.pop("max_tokens", None)
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    limit = body.pop("max_completion_tokens", older)
    if limit is None and model.default_output is not None:
        limit = model.max_output if thinks else model.default_output
    if limit is None:
        return
    if limit > model.refuse_output:
        raise InvalidRequest(f"{name}: {model.id} takes at most {model.refuse_output}", param=name)
    body["max_completion_tokens"] = min(limit, model.max_output)


def _lacks_reasoning(message: dict[str, Any]) -> bool:
    """A thinking model refuses a tool call in the history without its reasoning; a blank satisfies it."""
    calls = message["role"] == "assistant" and message.get("tool_calls")
    return bool(calls) and not message.get("reasoning_content")


def _lacks_parameters(tool: dict[str, Any]) -> bool:
    """The platform's schema wants `parameters`; many clients leave it out for a tool without any."""
    function = tool.get("function")
    return tool.get("type") == "function" and isinstance(function, dict) and "parameters" not in function
