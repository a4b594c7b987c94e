"""What each field of a Messages request becomes in the pivot."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kimi_gateway.dialects.messages.client_tools import SCHEMAS
from kimi_gateway.dialects.messages.request import read
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.search import SearchOptions
from support.messages_blocks import FUNCTION, HI, MARKED, TOOL, Json, chat, text
from support.messages_stream import asked

SYSTEMS: dict[str, tuple[Any, list[Json]]] = {
    "a string": ("Be kind.", [{"role": "system", "content": "Be kind."}]),
    "one block": ([text("Be kind.", cache_control=MARKED)], [{"role": "system", "content": "Be kind."}]),
    "blocks": ([text("a"), text("b")], [{"role": "system", "content": [text("a"), text("b")]}]),
    "nothing": ("", []),
    "no blocks": ([], []),
    "Claude Code's bill, which differs each time": (
        [text("x-anthropic-billing-header: cc_version=2.1; cch=36ee5;"), text("You are")],
        [{"role": "system", "content": "You are"}],
    ),
    "the same in a string": (
        "x-anthropic-billing-header: cc_version=2.1; cch=36ee5;\n\nYou are",
        [{"role": "system", "content": "You are"}],
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_system_prompt_is_the_first_message(name: str) -> None:
    given_, expected = SYSTEMS[name]
    assert chat(system=given_)["messages"] == [*expected, HI]


def choosing(**choice: Any) -> Json:
    return {"tools": [TOOL], "tool_choice": choice}


ADAPTIVE = {"type": "adaptive"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}}
DIGEST = hashlib.sha256(b"user_1").hexdigest()
FIELDS: dict[str, tuple[Json, Json]] = {
    "max_tokens": ({"max_tokens": 5}, {"max_tokens": 5}),
    "temperature and top_p": ({"temperature": 1, "top_p": 0.5}, {"temperature": 1, "top_p": 0.5}),
    "adaptive thinking": ({"thinking": ADAPTIVE}, {"thinking": ADAPTIVE}),
    "thinking with a budget": (
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
    ),
    "no thinking": ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    "thinking between tools": ({"thinking": {"type": "between_tools"}}, {"thinking": ADAPTIVE}),
    "how thinking is shown": ({"thinking": ADAPTIVE | {"display": "omitted"}}, {"thinking": ADAPTIVE}),
    "an effort": ({"output_config": {"effort": "medium"}}, {"reasoning_effort": "medium"}),
    "an output format": (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": None}},
        {"response_format": FORMAT},
    ),
    "its older name": (
        {"output_format": {"type": "json_schema", "schema": SCHEMA}}, {"response_format": FORMAT},
    ),
    "the user is a hash, and a key for the cache": (
        {"metadata": {"user_id": "user_1"}}, {"safety_identifier": DIGEST, "prompt_cache_key": DIGEST},
    ),
    "a cache key of one's own": (
        {"prompt_cache_key": "k", "metadata": {"user_id": "user_1"}},
        {"safety_identifier": DIGEST, "prompt_cache_key": "k"},
    ),
    "no user": ({"metadata": {"user_id": None}}, {}),
    "an hour's cache": (
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"prompt_cache_options": {"mode": "implicit", "ttl": "1h"}},
    ),
    "the usual cache": ({"cache_control": MARKED}, {}),
    "tools": ({"tools": [TOOL | {"cache_control": MARKED, "defer_loading": True}]}, {"tools": [FUNCTION]}),
    "custom tools": ({"tools": [TOOL | {"type": "custom"}]}, {"tools": [FUNCTION]}),
    "auto": (choosing(type="auto"), {"tools": [FUNCTION], "tool_choice": "auto"}),
    "any": (choosing(type="any"), {"tools": [FUNCTION], "tool_choice": "required"}),
    "none": (choosing(type="none"), {"tools": [FUNCTION], "tool_choice": "none"}),
    "a tool by name": (
        choosing(type="tool", name="get", disable_parallel_tool_use=True),
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "get"}}},
    ),
    "a choice without tools": ({"tool_choice": {"type": "any"}, "tools": []}, {}),
    "nulls are absent": ({"system": None, "tools": None, "thinking": None, "temperature": None}, {}),
    "fields that nobody knows": ({"x_unknown": {"deep": [1.5]}}, {"x_unknown": {"deep": [1.5]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_becomes_the_pivots(name: str) -> None:
    given_, expected = FIELDS[name]
    assert chat(**given_) == {"max_tokens": 9, "messages": [HI], **expected}


OURS = {
    "top_k": 5, "service_tier": "auto", "container": "c", "mcp_servers": [], "context_management": {},
    "betas": ["x"], "inference_geo": "us", "speed": "fast", "diagnostics": {},
    "n": 3, "stop": "x", "stream_options": {}, "logprobs": True, "user": "u",
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_a_field_without_a_meaning_upstream_is_left_out_and_named(name: str) -> None:
    read_ = asked(**{name: OURS[name]})
    assert read_.chat.body == {"max_tokens": 9, "messages": [HI]}
    assert read_.chat.ignored == (name,)


def test_a_search_of_anthropics_servers_is_asked_of_the_gateway_and_so_is_the_choice_of_it() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    choice = {"type": "tool", "name": "web_search"}
    alone = asked(tools=[search], tool_choice=choice)
    assert alone.chat.body == {"max_tokens": 9, "messages": [HI]}
    assert alone.chat.search == SearchOptions(pages=False, most=8, forced=True)
    assert alone.chat.search.asked_by == ("tools.web_search_20250305",)
    assert alone.chat.ignored == ()
    beside = asked(tools=[search, TOOL], tool_choice=choice)
    assert beside.chat.body["tools"] == [FUNCTION]
    assert "tool_choice" not in beside.chat.body


@pytest.mark.parametrize(
    "kind",
    ["code_execution_20250825", "computer_20251124", "browser_toolset_20260801",
     "tool_search_tool_bm25_20251119", "mcp_toolset", "advisor_20260301", "of_tomorrow"],
)  # fmt: skip
def test_no_tool_of_theirs_breaks_a_request(kind: str) -> None:
    assert asked(tools=[{"type": kind}]).chat.ignored == (f"tools.{kind}",)


@pytest.mark.parametrize(
    ("tools", "options"),
    [
        ([{"type": "web_fetch_20260318", "name": "web_fetch"}], SearchOptions(searches=False)),
        (
            [
                {"type": "web_search_20260209", "name": "web_search", "allowed_domains": ["a.example"]},
                {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 3},
            ],
            SearchOptions(most_pages=3, allowed=("a.example",)),
        ),
        (
            [
                {
                    "type": "web_search_20250305",
                    "name": "web_search",
                    "blocked_domains": ["b.example"],
                    "user_location": {"type": "approximate", "city": "Bern", "country": "CH"},
                    "max_uses": None,
                }
            ],
            SearchOptions(pages=False, blocked=("b.example",), location="Bern, CH"),
        ),
    ],
)
def test_hosted_tools_say_how_the_web_may_be_searched(
    tools: list[dict[str, Any]], options: SearchOptions
) -> None:
    assert asked(tools=tools).chat.search == options


def test_no_choice_of_tools_is_no_search() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert asked(tools=[search], tool_choice={"type": "none"}).chat.search is None


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"max_uses": 0}, "tools.0.max_uses"),
        ({"allowed_domains": "a"}, "tools.0.allowed_domains"),
        ({"allowed_domains": [3]}, "tools.0.allowed_domains.0"),
        ({"allowed_domains": ["a"], "blocked_domains": ["b"]}, "tools.0.blocked_domains"),
        ({"user_location": "Bern"}, "tools.0.user_location"),
    ],
)
def test_a_hosted_tool_that_is_wrong_is_named(tool: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(tools=[{"type": "web_search_20250305", "name": "web_search", **tool}])
    assert refused.value.param == field


@pytest.mark.parametrize(
    ("kind", "name"),
    [("bash_20250124", "bash"), ("text_editor_20250728", "str_replace_based_edit_tool"),
     ("text_editor_20241022", "str_replace_editor"), ("memory_20250818", "memory")],
)  # fmt: skip
def test_a_tool_that_the_client_runs_is_a_function(kind: str, name: str) -> None:
    (function,) = chat(tools=[{"type": kind, "name": name}])["tools"]
    description, parameters = SCHEMAS[kind.rpartition("_")[0]]
    assert function["function"] == {"name": name, "description": description, "parameters": parameters}


def test_stop_sequences_are_all_the_gateways_own() -> None:
    read_ = asked(stop_sequences=["END", "\n\nHuman:", "END"])
    assert read_.chat.stops == ("END", "\n\nHuman:")
    assert "stop" not in read_.chat.body


SHOWN: dict[str, tuple[Json, str]] = {
    "unasked": ({}, "shown"),
    "asked": ({"thinking": ADAPTIVE}, "shown"),
    "summarized": ({"thinking": ADAPTIVE | {"display": "summarized"}}, "shown"),
    "omitted": ({"thinking": ADAPTIVE | {"display": "omitted"}}, "sealed"),
    "off": ({"thinking": {"type": "disabled"}}, "hidden"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_thinking_is_shown_as_asked(name: str) -> None:
    given_, thinking = SHOWN[name]
    assert asked(**given_).thinking == thinking


def test_counting_needs_no_max_tokens() -> None:
    assert read(b'{"model":"m","messages":[{"role":"user","content":"x"}]}', counting=True)
