"""OpenAI's hosted web search: what its tool asks for, and the items of an answer (its SDK, 2026-11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kimi_gateway.dialects.responses.emitter import Place
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import Check
from kimi_gateway.pivot.search import RESULTS, SearchCall, SearchOptions
from kimi_gateway.pivot.search_fields import is_vendors, location

KINDS = frozenset(
    ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")
)
SOURCES, RESULTS_TOO = "web_search_call.action.sources", "web_search_call.results"  # of `include`
MOST_DOMAINS = 100


def is_kind(kind: Any) -> bool:
    """Whether it is the type of a hosted search; a client may send anything as a type."""
    return isinstance(kind, str) and kind in KINDS


def options(body: dict[str, Any]) -> SearchOptions | None:
    """The search that the hosted tools of a body request; None without one. Raises InvalidRequest."""
    found: SearchOptions | None = None
    for index, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and (is_kind(tool.get("type")) or is_vendors(tool)):
            found = _of(tool, f"tools.{index}")
    choice = body.get("tool_choice")
    if found is None or choice == "none":
        return None
    named = isinstance(choice, dict) and is_kind(choice.get("type"))
    only = all(isinstance(tool, dict) and is_kind(tool.get("type")) for tool in body["tools"])
    return replace(found, forced=True) if named or choice == "required" and only else found


def _of(tool: dict[str, Any], where: str) -> SearchOptions:
    known = fields.drop_nulls(tool, _FIELDS)
    fields.apply({name: known[name] for name in _FIELDS if name in known}, _FIELDS, f"{where}.")
    filters = known.get("filters") or {}
    size = known.get("search_context_size", "medium")
    return SearchOptions(
        results=RESULTS.get(size, RESULTS["medium"]),
        thorough=size == "high",
        allowed=_domains(filters.get("allowed_domains"), f"{where}.filters.allowed_domains"),
        location=location(known.get("user_location"), f"{where}.user_location"),
        asked_by=("tools.$web_search" if is_vendors(tool) else f"tools.{tool['type']}",),
    )


def _domains(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    fields.array(value, where)
    for index, domain in enumerate(value[:MOST_DOMAINS]):
        fields.string(domain, f"{where}.{index}")
    return tuple(value[:MOST_DOMAINS])


_FIELDS: dict[str, Check] = {
    "search_context_size": fields.string,
    "filters": fields.mapping,
}


class WebSearch:
    """One search, or one page that is opened, as an output item."""

    def __init__(self, place: Place, call: SearchCall, include: frozenset[str]) -> None:
        self.place = place
        self._call = call
        self._include = include
        place.added(self.item("in_progress"))
        place.tell("web_search_call.in_progress")
        place.tell("web_search_call.searching")

    def done(self, call: SearchCall) -> None:
        self._call = call

    def end(self, status: str) -> None:
        if self._call.done and self._call.error is None:
            self.place.tell("web_search_call.completed")
        self.place.done(self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        call = self._call
        if call.done:
            status = "failed" if call.error is not None else "completed"
        action: dict[str, Any] = {"type": "open_page", "url": call.argument}
        if call.kind == "search":
            action = {"type": "search", "query": call.argument, "queries": [call.argument]}
            if call.done and SOURCES in self._include:
                action["sources"] = [{"type": "url", "url": source.url} for source in call.sources]
        item: dict[str, Any] = {
            "id": self.place.id,
            "type": "web_search_call",
            "status": status,
            "action": action,
        }
        if call.done and RESULTS_TOO in self._include:
            item["results"] = [
                {"type": "text_result", "url": each.url, "title": each.title, "snippet": each.text[:1_000]}
                for each in call.sources
            ]
        return item


def tool_usage(searches: int) -> dict[str, Any]:
    """The SDK wants the counts of pictures beside those of searches."""
    details = {"image_tokens": 0, "text_tokens": 0}
    images = {"input_tokens": 0, "input_tokens_details": details, "output_tokens": 0, "total_tokens": 0}
    return {"web_search": {"num_requests": searches}, "image_gen": images}
