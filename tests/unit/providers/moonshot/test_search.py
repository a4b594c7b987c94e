"""The platform's search and page tools: what is asked, what is read of an answer, what a refusal means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.providers.moonshot.search import LONGEST_SHORT, MOST_PASSAGES, MoonshotSearch
from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.search import Query, SearchFailed
from upstream import Cut, ScriptedUpstream, Stall, Status, Step
from upstream.search import FETCH, SEARCH, SEARCH_PRO, refused, result

T = TypeVar("T")
TOKEN = Token.of("sk-upstream-of-search")
NOW = 1_800_000_000


def run(up: ScriptedUpstream, ask: Callable[[MoonshotSearch], Awaitable[T]]) -> T:
    async def main() -> T:
        client = Http1Client()
        try:
            return await ask(MoonshotSearch(client, up.url, 5, lambda: NOW))
        finally:
            await client.close()

    return asyncio.run(main())


def failure(up: ScriptedUpstream, ask: Callable[[MoonshotSearch], Awaitable[Any]]) -> SearchFailed:
    with pytest.raises(SearchFailed) as failed:
        run(up, ask)
    assert TOKEN.secret not in str(failed.value)
    return failed.value


KIMI = Query("kimi")


def find(query: Query = KIMI) -> Callable[[MoonshotSearch], Awaitable[Any]]:
    return lambda search: search.search(query, TOKEN)


def test_a_search_finds_pages_and_shows_its_token(up: ScriptedUpstream) -> None:
    found = run(up, find(Query("kimi", results=3, seconds=7)))
    assert [each.url for each in found] == [f"https://example.com/{number}" for number in (1, 2, 3)]
    assert (found[0].title, found[0].snippet, found[0].site) == (
        "Page 1",
        "The snippet of page 1.",
        "Example",
    )
    (request,) = up.searches
    assert (request.path, request.token) == (SEARCH, TOKEN.secret)
    assert request.body == {"text_query": "kimi", "limit": 3, "timeout_seconds": 7}


def test_a_thorough_search_has_sites_a_time_and_passages(up: ScriptedUpstream) -> None:
    up.web.results = [
        result(1, url="https://a.example/1", chunks=[{"text": "One.", "score": 0.5}]),
        result(2),
    ]
    sites = tuple(f"{letter}.example" for letter in "abcdef")
    (found,) = run(up, find(Query("kimi", thorough=True, sites=sites, start="2026", end="2026-11-02")))
    assert found.passages == ("One.",)
    (request,) = up.searches
    assert request.path == SEARCH_PRO
    assert request.body["sites"] == list(sites[:5])
    assert request.body["time_window"] == {"start": "2026", "end": "2026-11-02"}


def test_a_page_is_opened_as_markdown(up: ScriptedUpstream) -> None:
    up.web.pages["https://example.com/1"] = "# One"
    page = run(up, lambda search: search.open_page("https://example.com/1", TOKEN))
    assert (page.url, page.text) == ("https://example.com/1", "# One")
    assert up.searches[0].body == {"url": "https://example.com/1"}


def test_nothing_found_is_no_failure(up: ScriptedUpstream) -> None:
    up.web.results = []
    assert run(up, find()) == []


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (refused(400, "invalid_request", "text_query"), "invalid"),
        (refused(401), "token"),
        (refused(403), "token"),
        (refused(408, "client_canceled"), "unavailable"),
        (refused(429, "rate_limited"), "rate"),
        (refused(429, "rate_limit_unavailable"), "rate"),
        (refused(500, "internal_error", "at /srv/app.go:12"), "unavailable"),
        (refused(502, "upstream_failed"), "unavailable"),
        (refused(504, "timeout"), "unavailable"),
        (Status(200, "<html>"), "unavailable"),
        (Status(200, "[]"), "unavailable"),
        (Status(200, {"search_results": {}}), "unavailable"),
        (Status(418, {"error": {"type": ["x"], "message": 3}}), "unavailable"),
    ],
)
def test_a_refusal_has_one_reason(up: ScriptedUpstream, step: Status, reason: str) -> None:
    up.at(SEARCH, step)
    assert failure(up, find()).reason == reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com", "invalid"),
        ("https://127.0.0.1/", "refused_address"),
        ("https://example.com/empty", "no_text"),
    ],
)
def test_a_page_that_is_not_opened_has_its_reason(up: ScriptedUpstream, url: str, reason: str) -> None:
    assert failure(up, lambda search: search.open_page(url, TOKEN)).reason == reason


def test_a_page_of_blanks_has_no_text(up: ScriptedUpstream) -> None:
    up.at(FETCH, Status(200, {"url": "https://example.com", "title": "", "markdown": " \n"}))
    assert failure(up, lambda search: search.open_page("https://example.com", TOKEN)).reason == "no_text"


@pytest.mark.parametrize(
    ("reset", "after"),
    [(str(NOW + 3), 3.0), (str(NOW - 3), 0.0), ("soon", None), ("9" * 40, None), ("", None)],
)
def test_the_end_of_a_limit_is_read_where_it_makes_sense(
    up: ScriptedUpstream, reset: str, after: float | None
) -> None:
    up.at(SEARCH, refused(429, "rate_limited", x_ratelimit_reset=reset))
    assert failure(up, find()).retry_after == after


def test_a_connection_that_breaks_is_a_failed_search(up: ScriptedUpstream) -> None:
    up.at(SEARCH, Cut(5, Status(200, {"search_results": []})))
    assert failure(up, find()).reason == "unavailable"


def test_what_a_hostile_answer_holds_is_cut_or_left_out(up: ScriptedUpstream) -> None:
    fine = result(1, title="t" * 5_000, snippet=None, site_name=7, chunks=[{"text": "x"}] * 500 + [3, {}])
    odd = [
        3,
        None,
        {},
        {"url": 7},
        result(2, url="javascript:alert(1)"),
        result(3, url="https://" + "a" * 9_999),
    ]
    up.at(SEARCH, Status(200, {"search_results": [*odd, fine, *[result(4)] * 100]}))
    found = run(up, find())
    assert len(found) <= 20
    assert (len(found[0].title), found[0].snippet, found[0].site) == (LONGEST_SHORT, "", "")
    assert len(found[0].passages) == MOST_PASSAGES
    assert all(each.url.startswith("https://example.com") for each in found)


def test_an_answer_that_stops_in_its_middle_has_a_deadline(up: ScriptedUpstream) -> None:
    up.at(SEARCH, Stall(0, Status(200, {"search_results": []})))

    async def main() -> SearchFailed:
        client = Http1Client()
        search = MoonshotSearch(client, up.url, 0.1, lambda: NOW, slack=-0.9)
        try:
            with pytest.raises(SearchFailed) as failed:
                await search.search(Query("kimi", seconds=1), TOKEN)
            return failed.value
        finally:
            await client.close()

    failed = asyncio.run(main())
    assert (failed.reason, failed.billed) == ("unavailable", None)


@pytest.mark.parametrize(
    ("step", "billed"),
    [
        (refused(401), False),
        (refused(429, "rate_limited"), False),
        (refused(504, "timeout"), False),
        (Status(200, "<html>"), None),
        (Cut(5, Status(200, {"search_results": []})), None),
        (Status(200, {"search_results": [{"url": "javascript:alert(1)"}]}), True),
    ],
)
def test_a_failure_says_whether_it_may_cost_money(
    up: ScriptedUpstream, step: Step, billed: bool | None
) -> None:
    up.at(SEARCH, step)
    assert failure(up, find()).billed is billed
