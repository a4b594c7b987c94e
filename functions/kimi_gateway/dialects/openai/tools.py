"""The tools of a request, and what is said of them elsewhere in it, made fit for one model."""

from __future__ import annotations

import operator
from typing import Any

from kimi_gateway.catalog.models import MOST_TOOLS, TOOL_NAME, Model
from kimi_gateway.dialects.fields import fail
from kimi_gateway.dialects.openai import schemas, tool_names
from kimi_gateway.dialects.openai.tool_choice import choose, name_of
from kimi_gateway.dialects.openai.tool_names import Names

# The platform's schema wants `parameters`; many clients leave it out for a tool without any.
_NO_PARAMETERS = {"type": "object", "properties": {}}


def adapt_tools(body: dict[str, Any], model: Model, thinks: bool) -> dict[str, str]:
    """Replaces members of `body` where they must be others, and only there. Gives the clients' names of tools
    by the names that were sent instead. Raises InvalidRequest."""
    tools = body.get("tools") or []
    if len(tools) > MOST_TOOLS:
        fail(
            "tools",
            f"holds {len(tools)} tools; the upstream takes {MOST_TOOLS} at most. Offer fewer;"
            " in Claude Code switch tool search on (ENABLE_TOOL_SEARCH=true), which offers them as needed",
        )
    in_history = any(map(_names_tools, body["messages"]))
    if not (tools or in_history or "tool_choice" in body):
        return {}
    names = _names(body)
    if tools:
        body["tools"] = _fitting(tools, "tools", model, names)
    if "tool_choice" in body:
        choose(body, model.choices_thinking if thinks else model.choices, names)
    if in_history:
        fitting = [_message(message, at, model, names) for at, message in enumerate(body["messages"])]
        body["messages"] = _same(body["messages"], fitting)
    return names.originals


def _names(body: dict[str, Any]) -> Names:
    brought = [tool for message in body["messages"] if "tools" in message for tool in message["tools"] or ()]
    offered = [*(body.get("tools") or ()), *brought]
    own = [name_of(tool) for tool in offered if tool.get("type") == "builtin_function"]
    taken = {name for tool in offered if (name := name_of(tool)) and TOOL_NAME.fullmatch(name)}
    return Names(taken, frozenset(name for name in own if name))


def _fitting(tools: list[Any], where: str, model: Model, names: Names) -> list[Any]:
    return _same(tools, [_tool(tool, f"{where}.{at}", model, names) for at, tool in enumerate(tools)])


def _same(before: list[Any], after: list[Any]) -> list[Any]:
    """The very list where nothing in it is another, and with it the client's own words of it."""
    return before if len(before) == len(after) and all(map(operator.is_, before, after)) else after


def _tool(tool: dict[str, Any], where: str, model: Model, names: Names) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    fitting = _NO_PARAMETERS if parameters is None else parameters
    if model.mfjs and fitting is parameters:
        fitting = schemas.clean(parameters, f"{where}.function.parameters")
    if fitting is not parameters:
        tool = {**tool, "function": {**function, "parameters": fitting}}
    return tool_names.renamed(tool, names)


def _names_tools(message: dict[str, Any]) -> bool:
    return "tools" in message or tool_names.odd(message)


def _message(message: dict[str, Any], at: int, model: Model, names: Names) -> dict[str, Any]:
    tools = message.get("tools")
    if tools:
        fitting = _fitting(tools, f"messages.{at}.tools", model, names)
        message = message if fitting is tools else {**message, "tools": fitting}
    return tool_names.in_message(message, names)
