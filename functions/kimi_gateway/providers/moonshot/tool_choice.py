"""Tool choices, as strong as the model supports them; none is refused (docs/contract.md, Tools)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kimi_gateway.catalog.models import Choice
from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot.fields import fail
from kimi_gateway.providers.moonshot.tool_names import Names


@dataclass(frozen=True, slots=True)
class _Wish:
    """`only`: the offered tools are limited to these; None means all."""

    mode: Choice
    only: tuple[str, ...] | None = None


def choose(body: dict[str, Any], takes: Collection[Choice], names: Names) -> None:
    """Apply the body's `tool_choice`. `names` translates the client's tool names. Raises InvalidRequest if no
    tool has the chosen name."""
    wish = _wish(body["tool_choice"])
    if wish is None:
        return
    offered = _offered(body, names)
    for name in wish.only or ():
        if names(name) not in offered:
            fail("tool_choice", f"no tool is named {name}")
    only = None if wish.only is None else tuple(map(names, wish.only))
    if wish.mode == "required":
        if not offered:
            fail("tool_choice", "needs tools")
        _force(body, only, takes)
    elif only is not None:
        _narrow(body, only)
        body["tool_choice"] = wish.mode


def _force(body: dict[str, Any], only: tuple[str, ...] | None, takes: Collection[Choice]) -> None:
    if only is not None:
        if "named" in takes and len(only) == 1:
            body["tool_choice"] = _named(body, only[0])
            return
        _narrow(body, only)
    tools: list[dict[str, Any]] = body.get("tools") or []
    if "required" in takes:
        body["tool_choice"] = "required"
    elif "named" in takes and len(tools) == 1 and (sole := name_of(tools[0])):
        body["tool_choice"] = _named(body, sole)
    else:
        body["tool_choice"] = "auto"
        _ask(body, only)


def _wish(choice: Any) -> _Wish | None:
    """None if no rewriting is needed or the kind is unknown."""
    if isinstance(choice, str):
        return _Wish("required") if choice == "required" else None
    if choice.get("type") in ("function", "builtin_function") and (name := name_of(choice)):
        return _Wish("required", (name,))
    allowed = choice.get("allowed_tools")
    if choice.get("type") == "allowed_tools" and isinstance(allowed, dict):
        listed = [name_of(tool) for tool in allowed.get("tools") or () if isinstance(tool, dict)]
        mode: Choice = "required" if allowed.get("mode") == "required" else "auto"
        return _Wish(mode, tuple(name for name in listed if name))
    return None


def name_of(tool: dict[str, Any]) -> str | None:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _offered(body: dict[str, Any], names: Names) -> set[str]:
    """Names of the tools, including those of a system message (K3)."""
    brought = [tool for message in body["messages"] for tool in message.get("tools") or ()]
    return {names(name) for tool in [*(body.get("tools") or ()), *brought] if (name := name_of(tool))}


def _named(body: dict[str, Any], name: str) -> dict[str, Any]:
    kind = next((tool["type"] for tool in body.get("tools") or () if name_of(tool) == name), "function")
    return {"type": kind, "function": {"name": name}}


def _narrow(body: dict[str, Any], only: Collection[str]) -> None:
    tools = body.get("tools") or []
    kept = [tool for tool in tools if name_of(tool) in only]
    if len(kept) < len(tools) and kept:
        body["tools"] = kept


def _ask(body: dict[str, Any], only: tuple[str, ...] | None) -> None:
    """Add a system line behind the history, so that the vendor's cache of the history stays valid."""
    which = " or ".join(only) if only else "one of the tools"
    line = {"role": "system", "content": f"Answer with a call of {which}, and with nothing else."}
    messages = body["messages"]
    at = len(messages) - bool(messages[-1].get("partial"))
    body["messages"] = [*messages[:at], line, *messages[at:]]
