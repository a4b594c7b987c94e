"""Detects requests that are only a web search. The gateway cannot search here, and a model would invent
results; so the answer is a search error, which clients can show."""

from __future__ import annotations

import re
from typing import Any

# The request of Claude Code's WebSearch tool (2026-11): the search is the only tool, and this is the
# question.
_HELPER = re.compile(r"Perform a web search for the query: (.+)", re.S)
_SEARCH = re.compile(r"web_search_20\d{6}")
LONGEST = 2_000  # characters of the query that are repeated in the answer


def wanted(body: dict[str, Any]) -> str | None:
    """The query; None if the request is more than a search. `body` must be checked already."""
    tools = body.get("tools") or []
    searches = [tool["name"] for tool in tools if _is_search(tool)]
    if not searches:
        return None
    question = _last_text(body["messages"])
    choice = body.get("tool_choice") or {}
    kind = choice.get("type")
    alone = len(searches) == len(tools)
    forced = kind == "tool" and choice.get("name") in searches or kind == "any" and alone
    helper = _HELPER.search(question)
    if not forced and not (alone and len(tools) == 1 and helper and kind in (None, "auto")):
        return None
    return (helper[1] if helper else question).strip()[:LONGEST]


def _is_search(tool: Any) -> bool:
    kind = tool.get("type")
    return isinstance(kind, str) and bool(_SEARCH.fullmatch(kind)) and isinstance(tool.get("name"), str)


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content")
    if isinstance(content, str):
        return content
    texts = [block.get("text") for block in content or () if isinstance(block, dict)]
    return next((text for text in reversed(texts) if isinstance(text, str)), "")
