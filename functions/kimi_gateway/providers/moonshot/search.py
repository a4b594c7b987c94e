"""The platform's tools for searching and for opening pages. Facts: docs/upstream.md, "Search".

Their errors differ from those of chat: types without the suffix `_error`, and 401 and 403 without a body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kimi_gateway.net import http, jsonio
from kimi_gateway.observe import excerpt
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.search import MOST_RESULTS, MOST_SITES, Page, Query, Reason, Result, SearchFailed

LONGEST_ANSWER = 2 * 2**20  # bytes
LARGE = 64 * 1024  # bytes of an answer that is parsed apart from the loop
LONGEST_URL = 4_096  # characters
LONGEST_SHORT = 1_000  # characters of a title, a site's name or a date
LONGEST_TEXT = 200_000  # characters of a snippet, a passage or a page
MOST_PASSAGES = 50  # of one result
SLACK = 5.0  # seconds beyond the time-out that the platform was given
OPENING = 60.0  # seconds for a page
# (source: the platform's pages "search", "search pro" and "fetch", 2026-11)
_BY_TYPE: Mapping[str, Reason] = {
    "invalid_request": "invalid",
    "invalid_url": "invalid",
    "security_risk": "refused_address",
    "markdown_not_found": "no_text",
    "rate_limited": "rate",
    "rate_limit_unavailable": "rate",
}
_BY_STATUS: Mapping[int, Reason] = {400: "invalid", 401: "token", 403: "token", 429: "rate"}


class MoonshotSearch:
    """`base_url` as for chat. `clock` gives unix seconds. `slack`: see SLACK."""

    def __init__(
        self,
        client: http.Client,
        base_url: str,
        connect: float,
        clock: Callable[[], float] = time.time,
        slack: float = SLACK,
    ) -> None:
        self._client = client
        self._base = base_url
        self._connect = connect
        self._clock = clock
        self._slack = slack

    async def search(self, query: Query, token: Token) -> list[Result]:
        body: dict[str, Any] = {
            "text_query": query.text,
            "limit": min(max(query.results, 1), MOST_RESULTS),
            "timeout_seconds": min(max(query.seconds, 1), 60),
        }
        if query.thorough:
            body |= {"sites": list(query.sites[:MOST_SITES])} if query.sites else {}
            window = {name: day for name, day in (("start", query.start), ("end", query.end)) if day}
            body |= {"time_window": window} if window else {}
        path = "/tools/search_pro" if query.thorough else "/tools/search"
        found = (await self._call(path, body, body["timeout_seconds"] + self._slack, token)).get(
            "search_results"
        )
        if not isinstance(found, list):
            raise SearchFailed("unavailable", "an answer without search_results", billed=None)
        results = [result for each in found[:MOST_RESULTS] if (result := _result(each)) is not None]
        if found and not results:
            raise SearchFailed("unavailable", "results without an address", billed=True)
        return results

    async def open_page(self, url: str, token: Token) -> Page:
        told = await self._call("/tools/fetch", {"url": url}, OPENING, token)
        text = _text(told.get("markdown"), LONGEST_TEXT)
        if not text.strip():
            raise SearchFailed("no_text", "a page without text")
        return Page(_text(told.get("url"), LONGEST_URL) or url, _text(told.get("title"), LONGEST_SHORT), text)

    async def _call(self, path: str, body: dict[str, Any], seconds: float, token: Token) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token.secret}", "content-type": "application/json"}
        patience = http.Timeouts(self._connect, seconds)
        sending = self._client.send("POST", self._base + path, headers, jsonio.dumps(body), patience)
        try:
            async with asyncio.timeout(self._connect + seconds), sending as answer:
                text = await answer.read(LONGEST_ANSWER)
        except http.ConnectFailed as exc:
            raise SearchFailed("unavailable", str(exc)) from exc
        except (http.NetError, TimeoutError) as exc:
            raise SearchFailed("unavailable", str(exc) or "no answer in time", billed=None) from exc
        if answer.status != 200:
            raise self._refused(answer.status, answer.headers, text)
        try:
            parsed = jsonio.loads(text) if len(text) < LARGE else await asyncio.to_thread(jsonio.loads, text)
        except (ValueError, RecursionError) as exc:
            raise SearchFailed("unavailable", "an answer that is not JSON", billed=None) from exc
        if not isinstance(parsed, dict):
            raise SearchFailed("unavailable", "an answer that is not an object", billed=None)
        return parsed

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> SearchFailed:
        try:
            error = jsonio.loads(body)["error"]
            kind = error["type"]
            detail = excerpt(str(error.get("message", "")), 300)
        except (ValueError, TypeError, KeyError, RecursionError):
            kind, detail = None, ""
        reason = _BY_TYPE.get(kind) if isinstance(kind, str) and status < 500 else None
        reason = reason or _BY_STATUS.get(status, "unavailable")
        after = self._seconds_until(headers.get("x-ratelimit-reset")) if reason == "rate" else None
        return SearchFailed(reason, f"status {status} {detail}".rstrip(), retry_after=after)

    def _seconds_until(self, moment: str | None) -> float | None:
        """The header is in unix seconds; only limits of requests a second have it."""
        if moment is None or not (moment.isascii() and moment.isdigit()) or len(moment) > 12:
            return None
        return min(max(int(moment) - self._clock(), 0.0), 86_400.0)


def _result(told: Any) -> Result | None:
    """None for what has no address that a client can follow."""
    if not isinstance(told, dict):
        return None
    url = told.get("url")
    if (
        not isinstance(url, str)
        or len(url) > LONGEST_URL
        or not url.lower().startswith(("http://", "https://"))
    ):
        return None
    return Result(
        url,
        _text(told.get("title"), LONGEST_SHORT) or url,
        _text(told.get("snippet"), LONGEST_TEXT),
        _text(told.get("site_name"), LONGEST_SHORT),
        _text(told.get("date"), LONGEST_SHORT),
        tuple(_passages(told.get("chunks"))),
    )


def _passages(chunks: Any) -> Iterable[str]:
    for chunk in chunks[:MOST_PASSAGES] if isinstance(chunks, list) else ():
        if isinstance(chunk, dict) and (text := _text(chunk.get("text"), LONGEST_TEXT)):
            yield text


def _text(value: Any, longest: int) -> str:
    """A value that is missing is an empty string on this platform, and may be anything on a hostile one."""
    return value[:longest] if isinstance(value, str) else ""
