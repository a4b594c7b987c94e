"""The platform's tools `search`, `search_pro` and `fetch`, with their own errors. Facts: docs/upstream.md.

Only a test says what the web holds; nobody is asked about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from upstream.steps import Status

SEARCH, SEARCH_PRO, FETCH = "/v1/tools/search", "/v1/tools/search_pro", "/v1/tools/fetch"
PATHS = (SEARCH, SEARCH_PRO, FETCH)
_DAY = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_BASIC = {"text_query", "limit", "timeout_seconds", "include_content"}
_PRO = {"text_query", "limit", "timeout_seconds", "sites", "time_window"}

Json = dict[str, Any]


def result(number: int, **more: Any) -> Json:
    """As the platform tells of one page; what it does not know is an empty string."""
    return {
        "title": f"Page {number}",
        "url": f"https://example.com/{number}",
        "snippet": f"The snippet of page {number}.",
        "site_name": "Example",
        "date": "",
        "authority": "",
        "icon": "",
        "mime": "",
        **more,
    }


def refused(status: int, kind: str = "", message: str = "", **headers: str) -> Status:
    """401 and 403 of these tools have an empty body; the other types have no suffix `_error`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Status(status, {"error": {"type": kind, "message": message}} if kind else b"", named)


@dataclass
class Web:
    """What a search finds and a page says. `pages` by address; None is a page without text."""

    results: list[Json] = field(default_factory=lambda: [result(number) for number in range(1, 8)])
    pages: dict[str, str | None] = field(default_factory=dict)

    def answer(self, path: str, body: Any) -> Status:
        told = self._fetched(body) if path == FETCH else self._found(path, body)
        track = {"x-msh-track-id": "track-0", "x-msh-chat-id": "toolgw-track-0"}
        return Status(told.code, told.body, {**told.headers, **track})

    def _found(self, path: str, body: Any) -> Status:
        if wrong := _wrong(body, _PRO if path == SEARCH_PRO else _BASIC):
            return refused(400, "invalid_request", wrong)
        found = self.results[: body.get("limit", 5)]
        if path == SEARCH_PRO:
            found = [{**each, "chunks": each.get("chunks", [])} for each in found]
            if sites := body.get("sites"):
                found = [each for each in found if any(f"//{site}" in each["url"] for site in sites)]
        return Status(200, {"search_results": found})

    def _fetched(self, body: Any) -> Status:
        url = body.get("url") if isinstance(body, dict) else None
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            return refused(400, "invalid_url", "url must be http or https")
        if "127.0.0.1" in url or "localhost" in url:
            return refused(403, "security_risk", "the url is not allowed")
        if self.pages.get(url) is None:
            return refused(404, "markdown_not_found", "no markdown")
        return Status(200, {"url": url, "title": f"Title of {url}", "markdown": self.pages[url]})


def _wrong(body: Any, members: set[str]) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("text_query"), str) or not body["text_query"]:
        return "text_query is required"
    if unknown := set(body) - members:
        return f"unknown field {sorted(unknown)[0]}"
    for name, least, most in (("limit", 1, 20), ("timeout_seconds", 1, 60)):
        value = body.get(name, 1)
        if type(value) is not int or not least <= value <= most:
            return f"{name} must be between {least} and {most}"
    sites = body.get("sites", [])
    if not isinstance(sites, list) or len(sites) > 5 or any(re.search(r"[\s()\[\]]", str(s)) for s in sites):
        return "sites: at most 5, without blanks or brackets"
    window = body.get("time_window", {})
    if not isinstance(window, dict) or not all(_DAY.fullmatch(str(day)) for day in window.values()):
        return "time_window: YYYY, YYYY-MM or YYYY-MM-DD"
    return None
