"""The fields of web search in a Chat Completions request.

Clients ask in five ways: OpenAI's `web_search_options`, the vendor's `$web_search` (which the gateway runs
itself), OpenRouter's tool and plugin, and `use_search` of the first free API for kimi.com.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.search import RESULTS, SearchOptions

_MEMBERS = {"use_search", "web_search_options", "tools", "plugins"}
_PLACE = ("city", "region", "country", "timezone")
_TOOLS = ("openrouter:web_search",)  # OpenRouter's server tool (2026-11)
_MOST = 20


def taken(body: dict[str, Any]) -> SearchOptions | None:
    """The search that the body asks for; its members are taken out of the body. Raises InvalidRequest.

    None where nothing is asked for, as by `use_search: false` and `"false"`.
    """
    if not _MEMBERS & body.keys():
        return None
    lines = _is_on(body.pop("use_search", False))
    found = [SearchOptions(asked_by=("use_search",))] if lines else []
    options = body.pop("web_search_options", None)
    if options is not None:
        found.append(_of_openai(options, "web_search_options"))
    found += _of_tools(body)
    found += _of_plugins(body)
    names = tuple(dict.fromkeys(name for each in found for name in each.asked_by))
    return replace(found[-1], lines=lines, asked_by=names) if found else None


def _is_on(value: Any) -> bool:
    if value is None or type(value) is bool:
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    fail("use_search", "must be true or false")


def _of_openai(options: Any, where: str) -> SearchOptions:
    fields.mapping(options, where)
    size = options.get("search_context_size") or "medium"
    fields.string(size, f"{where}.search_context_size")
    return SearchOptions(
        asked_by=("web_search_options",),
        results=RESULTS.get(size, RESULTS["medium"]),
        thorough=size == "high",
        location=location(options.get("user_location"), f"{where}.user_location"),
    )


def location(value: Any, where: str) -> str:
    """OpenAI's and Anthropic's place in words, for the tool's description. Raises InvalidRequest."""
    if value is None:
        return ""
    fields.mapping(value, where)
    place = value.get("approximate") if isinstance(value.get("approximate"), dict) else value
    told = []
    for name in _PLACE:
        if (text := place.get(name)) is not None:
            fields.string(text, f"{where}.{name}")
            told.append(" ".join(text[:100].split()))
    return ", ".join(filter(None, told))


def _of_tools(body: dict[str, Any]) -> Iterable[SearchOptions]:
    tools = body.get("tools")
    if not tools:
        return
    kept = []
    for index, tool in enumerate(tools):
        if is_vendors(tool):
            yield SearchOptions(asked_by=("tools.$web_search",))
        elif tool.get("type") in _TOOLS:
            asked = _of_openrouter(tool.get("parameters"), f"tools.{index}.parameters")
            yield replace(asked, asked_by=(f"tools.{tool['type']}",))
        else:
            kept.append(tool)
    if len(kept) < len(tools):
        _leave(body, kept)


def is_vendors(tool: Any) -> bool:
    """The vendor's own search, which it takes out of service (2026-10)."""
    function = tool.get("function")
    named = isinstance(function, dict) and function.get("name") == "$web_search"
    return tool.get("type") == "builtin_function" and named


def _leave(body: dict[str, Any], kept: list[Any]) -> None:
    """Without the search tools; a choice that only they could meet goes with them."""
    if kept:
        body["tools"] = kept
        return
    del body["tools"]
    body.pop("tool_choice", None)


def _of_plugins(body: dict[str, Any]) -> Iterable[SearchOptions]:
    plugins = body.pop("plugins", None)
    if plugins is None:
        return
    fields.array(plugins, "plugins")
    for index, plugin in enumerate(plugins):
        fields.mapping(plugin, f"plugins.{index}")
    if others := [plugin for plugin in plugins if plugin.get("id") != "web"]:
        body["plugins"] = others  # passed on, as unknown fields are
    for index, plugin in enumerate(plugins):
        if plugin.get("id") == "web":
            yield replace(_of_openrouter(plugin, f"plugins.{index}"), asked_by=("plugins",))


def _of_openrouter(options: Any, where: str) -> SearchOptions:
    options = options or {}
    fields.mapping(options, where)
    known = fields.drop_nulls(options, _OPENROUTER)
    fields.apply(known, _OPENROUTER, f"{where}.")
    return SearchOptions(results=min(known.get("max_results", 5), _MOST))


_OPENROUTER: dict[str, Check] = {"max_results": fields.integer(1)}
