"""Translates tools and the choice among them into the pivot."""

from __future__ import annotations

import re
from typing import Any

from kimi_gateway.dialects.messages.client_tools import SCHEMAS
from kimi_gateway.dialects.tool_set import ToolSet
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check, fail

_DATED = re.compile(r"(.+)_20\d{6}")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CUSTOM: dict[str, Check] = {"description": fields.string, "strict": fields.boolean}


def functions(tools: Any, where: str) -> ToolSet:
    """The tools as functions. Raises InvalidRequest."""
    fields.array(tools, where)
    tool_set = ToolSet("input_schema")
    for index, tool in enumerate(tools):
        here = f"{where}.{index}"
        fields.mapping(tool, here)
        kind = tool.get("type") or "custom"
        fields.string(kind, f"{here}.type")
        function = _custom(tool, here) if kind == "custom" else _defined(kind, tool, here)
        if function is None:
            tool_set.left_out.append(kind)
            continue
        if function["name"] in tool_set.placed:
            fail(f"{here}.name", f"function name {function['name']} is duplicated")
        tool_set.add(here, {"type": "function", "function": function}, function["name"])
    return tool_set


def _custom(tool: dict[str, Any], here: str) -> dict[str, Any]:
    fields.string(tool.get("name"), f"{here}.name")
    if tool.get("input_schema") is None:
        fail(f"{here}.input_schema", "is required")
    known = {name: tool[name] for name in _CUSTOM if tool.get(name) is not None}
    fields.apply(known, _CUSTOM, f"{here}.")
    return {"name": tool["name"], **known, "parameters": tool["input_schema"]}


def _defined(kind: str, tool: dict[str, Any], here: str) -> dict[str, Any] | None:
    dated = _DATED.fullmatch(kind)
    schema = SCHEMAS.get(dated.group(1)) if dated else None
    if schema is None:
        return None
    fields.string(tool.get("name"), f"{here}.name")
    description, parameters = schema
    return {"name": tool["name"], "description": description, "parameters": parameters}


def choice(value: dict[str, Any], where: str, tool_set: ToolSet) -> Any:
    """The pivot's `tool_choice`; None if there are no tools or the chosen one was dropped."""
    kind = value.get("type")
    fields.one_of(*_CHOICES, "tool")(kind, f"{where}.type")
    if value.get("disable_parallel_tool_use") is not None:
        fields.boolean(value["disable_parallel_tool_use"], f"{where}.disable_parallel_tool_use")
    if kind != "tool":
        return _CHOICES[str(kind)] if tool_set.placed else None
    name = value.get("name")
    fields.string(name, f"{where}.name")
    if name in tool_set.placed:
        return {"type": "function", "function": {"name": name}}
    if not tool_set.left_out:
        fail(f"{where}.name", "is not the name of a tool")
    return None
