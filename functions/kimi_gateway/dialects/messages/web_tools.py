"""Anthropic's hosted tools for searching and for opening pages (its SDK's types, 2026-11)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check, fail
from kimi_gateway.pivot.search import SearchOptions
from kimi_gateway.pivot.search_fields import location

_KIND = re.compile(r"(web_search|web_fetch)_20\d{6}")
MOST_DOMAINS = 100


def is_hosted(tool: Any) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None


def options(body: dict[str, Any], ignored: list[str]) -> SearchOptions | None:
    """The search that the hosted tools of a body request; None without one. `ignored` gets the rest.
    Raises InvalidRequest."""
    found: SearchOptions | None = None
    for index, tool in enumerate(body.get("tools") or ()):
        if is_hosted(tool):
            found = _with(
                found or SearchOptions(searches=False, pages=False), tool, f"tools.{index}", ignored
            )
    choice = body.get("tool_choice") or {}
    if found is None or not isinstance(choice, dict):
        return found
    hosted = {tool.get("name") for tool in body["tools"] if is_hosted(tool)}
    alone = all(map(is_hosted, body["tools"]))
    forced = choice.get("type") == "tool" and str(choice.get("name")) in hosted
    if choice.get("type") == "none":
        return None
    return replace(found, forced=True) if forced or choice.get("type") == "any" and alone else found


def _with(before: SearchOptions, tool: dict[str, Any], where: str, ignored: list[str]) -> SearchOptions:
    known = fields.drop_nulls(tool, _FIELDS)
    fields.apply({name: known[name] for name in _FIELDS if name in known}, _FIELDS, f"{where}.")
    if known.get("allowed_domains") and known.get("blocked_domains"):
        fail(f"{where}.blocked_domains", "cannot be used together with allowed_domains")
    ignored += [f"tools.{tool['type']}.{name}" for name in _UNUSED if known.get(name) is not None]
    searches = tool["type"].startswith("web_search")
    most = known.get("max_uses")
    return replace(
        before,
        asked_by=tuple(dict.fromkeys((*before.asked_by, f"tools.{tool['type']}"))),
        searches=before.searches or searches,
        pages=before.pages or not searches,
        most=most if searches else before.most,
        most_pages=before.most_pages if searches else most,
        allowed=before.allowed or tuple(known.get("allowed_domains") or ()),
        blocked=before.blocked or tuple(known.get("blocked_domains") or ()),
        location=before.location or location(known.get("user_location"), f"{where}.user_location"),
    )


def _domains(value: Any, where: str) -> None:
    fields.array(value, where)
    if len(value) > MOST_DOMAINS:
        fail(where, f"may have at most {MOST_DOMAINS} domains")
    for index, domain in enumerate(value):
        fields.string(domain, f"{where}.{index}")


_UNUSED = ("response_inclusion", "allowed_callers", "defer_loading", "citations", "max_content_tokens")
_FIELDS: dict[str, Check] = {
    "name": fields.string,
    "max_uses": fields.integer(1),
    "allowed_domains": _domains,
    "blocked_domains": _domains,
}
