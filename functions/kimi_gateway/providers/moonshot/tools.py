"""Adapts the tools of a request, and references to them, to one model."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import MOST_TOOLS, TOOL_NAME, Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot.fields import fail
from kimi_gateway.providers.moonshot import tool_names
from kimi_gateway.providers.moonshot.argument_names import escaped_text
from kimi_gateway.providers.moonshot.restoring import Renamed
from kimi_gateway.providers.moonshot.schema import clean
from kimi_gateway.providers.moonshot.tool_choice import choose, name_of
from kimi_gateway.providers.moonshot.tool_names import Names

# The platform requires `parameters`; many clients omit it for a tool without any.
_NO_PARAMETERS = {"type": "object", "properties": {}}


MOST_STEPS = 6_000  # of cleaning, for all schemas of one request
SPARE_STEPS = 1_500  # extra steps for small schemas after those that used up everything
SMALL_STEPS = 60


@dataclass(slots=True)
class _Fitting:
    """The rules for the tools of one request, and their results."""

    model: Model
    names: Names
    left: int = MOST_STEPS
    spare: int = SPARE_STEPS
    loosened: list[str] = field(default_factory=list)  # tools by the clients' names
    escaped: set[str] = field(default_factory=set)  # tools by the sent names

    def clean(self, parameters: Any) -> clean.Cleaned:
        if self.left > 0:
            cleaned = clean.clean_tool(parameters, self.left)
            self.left -= cleaned.steps
        else:
            cleaned = clean.clean_tool(parameters, min(self.spare, SMALL_STEPS))
            self.spare -= cleaned.steps
        return cleaned


def adapt_tools(
    body: dict[str, Any], model: Model, thinks: bool, most: int = MOST_TOOLS
) -> tuple[Renamed, list[str]]:
    """Replace members of `body` that must change, and only those. Returns the changed names, and the paths of
    schemas that became partly unconstrained. Raises InvalidRequest."""
    tools = body.get("tools") or []
    if len(tools) > most:
        fail(
            "tools",
            f"holds {len(tools)} tools; the upstream takes {most} at most. Offer fewer;"
            " in Claude Code switch tool search on (ENABLE_TOOL_SEARCH=true), which offers them as needed",
        )
    in_history = any(map(_names_tools, body["messages"]))
    if not (tools or in_history or "tool_choice" in body):
        return Renamed(), []
    names = _names(body)
    fitting = _Fitting(model, names)
    if tools:
        body["tools"] = _fitted(tools, fitting)
    if "tool_choice" in body:
        choose(body, model.choices_thinking if thinks else model.choices, names)
    if in_history:
        body["messages"] = _same(body["messages"], [_message(each, fitting) for each in body["messages"]])
    if fitting.escaped:
        body["messages"] = [_with_keys(message, fitting.escaped) for message in body["messages"]]
    places = [f"tools.{name}.parameters" for name in fitting.loosened]
    return Renamed(names.originals, frozenset(fitting.escaped)), places


def _names(body: dict[str, Any]) -> Names:
    brought = [tool for message in body["messages"] if "tools" in message for tool in message["tools"] or ()]
    offered = [*(body.get("tools") or ()), *brought]
    own = [name_of(tool) for tool in offered if tool.get("type") == "builtin_function"]
    taken = {name for tool in offered if (name := name_of(tool)) and TOOL_NAME.fullmatch(name)}
    return Names(taken, frozenset(name for name in own if name))


def _fitted(tools: list[Any], fitting: _Fitting) -> list[Any]:
    return _same(tools, [_tool(tool, fitting) for tool in tools])


def _same(before: list[Any], after: list[Any]) -> list[Any]:
    """Return the original list if unchanged, so that its bytes are reused."""
    return before if len(before) == len(after) and all(map(operator.is_, before, after)) else after


def _tool(tool: dict[str, Any], fitting: _Fitting) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    said = _NO_PARAMETERS if parameters is None else parameters
    if said is parameters and (fitting.model.mfjs or not isinstance(parameters, dict)):
        cleaned = fitting.clean(parameters)
        said = parameters if cleaned.schema is None else cleaned.schema
        if cleaned.loosened:
            fitting.loosened.append(name_of(tool) or "")
        if cleaned.renamed:
            fitting.escaped.add(fitting.names(name_of(tool) or ""))
    if said is not parameters:
        tool = {**tool, "function": {**function, "parameters": said}}
    return tool_names.renamed(tool, fitting.names)


def _names_tools(message: dict[str, Any]) -> bool:
    return "tools" in message or tool_names.odd(message)


def _message(message: dict[str, Any], fitting: _Fitting) -> dict[str, Any]:
    tools = message.get("tools")
    if tools:
        fitted = _fitted(tools, fitting)
        message = message if fitted is tools else {**message, "tools": fitted}
    return tool_names.in_message(message, fitting.names)


def _with_keys(message: dict[str, Any], escaped: Collection[str]) -> dict[str, Any]:
    """The message with the sent property names in the arguments of its calls."""
    calls = message.get("tool_calls")
    if not calls or not any(name_of(call) in escaped for call in calls):
        return message
    return {**message, "tool_calls": [_call_with_keys(call, escaped) for call in calls]}


def _call_with_keys(call: dict[str, Any], escaped: Collection[str]) -> dict[str, Any]:
    if name_of(call) not in escaped or not isinstance(call["function"].get("arguments"), str):
        return call
    function = call["function"]
    return {**call, "function": {**function, "arguments": escaped_text(function["arguments"])}}
