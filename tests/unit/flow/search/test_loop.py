"""What becomes of search calls, and when searching ends: rules without a provider."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.flow.search import tools
from kimi_gateway.flow.search.addresses import KnownAddresses
from kimi_gateway.flow.search.loop import MOST_CALLS, Bounds, SearchLoop, ToolCall
from kimi_gateway.pivot.search import SearchOptions
from upstream import mfjs


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("call-1", name, json.dumps(arguments))


def search(query: str) -> ToolCall:
    return call(tools.SEARCH, query=query)


def page(url: str) -> ToolCall:
    return call(tools.OPEN_PAGE, url=url)


def loop(options: SearchOptions | None = None, known: tuple[str, ...] = (), **bounds: Any) -> SearchLoop:
    addresses = KnownAddresses()
    addresses.add(known)
    return SearchLoop(options or SearchOptions(), Bounds(**bounds), addresses, lambda: 0.0)


def test_a_search_runs_with_what_the_client_asked_for() -> None:
    (step,) = loop(SearchOptions(results=10)).plan([search("  kimi ")])
    assert step.query is not None
    assert (step.query.text, step.query.results, step.query.thorough) == ("kimi", 10, False)


def test_allowed_domains_make_a_search_thorough_and_limit_it() -> None:
    allowed = tuple(f"{letter}.example" for letter in "abcdefg")
    (step,) = loop(SearchOptions(allowed=allowed)).plan([search("kimi")])
    assert step.query is not None
    assert (step.query.thorough, step.query.sites) == (True, allowed[:5])


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (ToolCall("1", tools.SEARCH, "{"), "invalid_tool_input"),
        (ToolCall("1", tools.SEARCH, "[" * 100_000), "invalid_tool_input"),
        (ToolCall("1", tools.SEARCH, '{"query": 3}'), "invalid_tool_input"),
        (search(" "), "invalid_tool_input"),
        (search("x" * 1_001), "query_too_long"),
        (page("https://a.example/" + "x" * 2_048), "url_too_long"),
        (page("https://a.example/unknown"), "url_not_in_prior_context"),
        (page("https://b.example/known"), "url_not_allowed"),
    ],
)
def test_what_cannot_run_is_told_to_the_model(asked: ToolCall, error: str) -> None:
    one = loop(SearchOptions(allowed=("a.example",)), ("https://b.example/known",))
    (step,) = one.plan([asked])
    assert (step.query, step.url, step.error) == (None, None, error)
    assert step.refusal


def test_no_more_searches_than_the_client_allows() -> None:
    one = loop(SearchOptions(most=2, most_pages=1), ("https://a.example",))
    steps = one.plan(
        [search("a"), search("b"), search("c"), page("https://a.example"), page("https://a.example")]
    )
    assert [step.error for step in steps] == [None, None, "max_uses_exceeded", None, "max_uses_exceeded"]


def test_a_round_has_a_bounded_number_of_calls() -> None:
    steps = loop().plan([search(str(number)) for number in range(MOST_CALLS + 3)])
    assert [step.error for step in steps[-4:]] == [None, *["too_many_requests"] * 3]


def test_searching_ends_at_each_bound() -> None:
    now = [0.0]
    one = SearchLoop(SearchOptions(), Bounds(2, 10, 100), KnownAddresses(), lambda: now[0])
    one.plan([search("a")])
    assert not one.over
    one.plan([search("b")])
    assert one.over
    assert not one.exhausted
    one.plan([search("c")])
    assert one.exhausted
    late = SearchLoop(SearchOptions(), Bounds(9, 10, 100), KnownAddresses(), lambda: now[0])
    late.plan([search("a")])
    now[0] = 11
    assert late.over
    full = loop(rounds=9, characters=100)
    full.plan([search("a")])
    full.took(100)
    assert full.over


def test_the_same_call_twice_in_a_row_ends_searching() -> None:
    one = loop(rounds=9)
    one.plan([search("a")])
    one.plan([search("b")])
    assert not one.over
    one.plan([search("b")])
    assert one.over
    assert one.exhausted


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3), max_size=12), st.integers(1, 5))
def test_every_loop_ends(asked: list[list[str]], rounds: int) -> None:
    """Whatever the model asks for, it is told to stop, and then loses the tools, within the bound."""
    one, ended = loop(rounds=rounds), 0
    for queries in asked:
        one.plan([search(query) for query in queries])
        ended += 1
        if one.exhausted:
            break
    assert ended <= rounds + 1


def test_an_address_is_known_however_it_was_written() -> None:
    known = KnownAddresses()
    known.read(
        [
            {"role": "user", "content": "See https://A.example/one#part, (https://a.example/two)."},
            {"role": "user", "content": [{"type": "text", "text": "读https://c.example/三。好"}]},
            {"role": "assistant", "content": "I would open https://evil.example/?secret=1"},
            {"role": "tool", "content": '{"url":"https://d.example/x?y=1"}'},
        ]
    )
    for url in (
        "https://a.example/one",
        "https://a.example/two",
        "https://c.example/三",
        "https://d.example/x?y=1",
    ):
        assert known.knows(url), url
    for url in (
        "https://evil.example/?secret=1",
        "https://a.example/",
        "https://a.example/one?x",
        "ftp://a",
        "x",
    ):
        assert not known.knows(url), url


def test_domain_rules() -> None:
    allowed = SearchOptions(allowed=("example.com", ".b.org/path"))
    assert allowed.permits("https://www.example.com/x")
    assert allowed.permits("https://b.org")
    assert not allowed.permits("https://notexample.com")
    assert not allowed.permits("https://example.com.evil.net")
    blocked = SearchOptions(blocked=("example.com",))
    assert not blocked.permits("https://EXAMPLE.com./")
    assert blocked.permits("https://example.org")
    assert not blocked.permits("nonsense")


def test_the_tools_are_as_the_vendor_takes_them_and_always_the_same() -> None:
    options = SearchOptions(location="Beijing, CN")
    assert tools.offered(options) == tools.offered(SearchOptions(location="Beijing, CN"))
    assert [tool["function"]["name"] for tool in tools.offered(options)] == [tools.SEARCH, tools.OPEN_PAGE]
    assert "Beijing" in tools.offered(options)[0]["function"]["description"]
    for tool in tools.offered(options):
        assert mfjs.refusal(tool["function"]["parameters"]) is None
    assert tools.offered(SearchOptions(pages=False))[0]["function"]["name"] == tools.SEARCH
