"""How a request of Chat Completions asks for web search, and what a model's name adds."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import named
from kimi_gateway.pivot.search import SearchOptions
from kimi_gateway.pivot.search_fields import taken


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"use_search": True}, SearchOptions(lines=True)),
        ({"use_search": "true"}, SearchOptions(lines=True)),
        ({"web_search_options": {}}, SearchOptions()),
        ({"web_search_options": {"search_context_size": "high"}}, SearchOptions(results=10, thorough=True)),
        ({"web_search_options": {"search_context_size": "huge"}}, SearchOptions()),
        (
            {
                "web_search_options": {
                    "user_location": {
                        "type": "approximate",
                        "approximate": {"city": "Bern", "country": "CH", "region": None},
                    }
                }
            },
            SearchOptions(location="Bern, CH"),
        ),
        ({"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, SearchOptions()),
        (
            {"tools": [{"type": "openrouter:web_search", "parameters": {"max_results": 3}}]},
            SearchOptions(results=3),
        ),
        ({"plugins": [{"id": "web", "max_results": 99}]}, SearchOptions(results=20)),
    ],
)
def test_each_way_to_ask_is_understood_and_taken_out(asked: dict[str, Any], options: SearchOptions) -> None:
    body = {"model": "kimi-k3", **asked}
    assert taken(body) == options
    assert body == {"model": "kimi-k3"}


@pytest.mark.parametrize("off", [False, "false", ""])
def test_a_switch_that_is_off_asks_for_nothing(off: object) -> None:
    body = {"use_search": off}
    assert taken(body) is None
    assert body == {}


def test_other_tools_and_their_choice_stay() -> None:
    mine = {"type": "function", "function": {"name": "mine"}}
    vendors = {"type": "builtin_function", "function": {"name": "$web_search"}}
    body = {"tools": [vendors, mine], "tool_choice": "auto"}
    assert taken(body) == SearchOptions()
    assert body == {"tools": [mine], "tool_choice": "auto"}
    body = {"tools": [vendors], "tool_choice": "required"}
    assert taken(body) == SearchOptions()
    assert body == {}


def test_plugins_that_do_not_search_pass_on() -> None:
    parser = {"id": "file-parser", "pdf": {"engine": "native"}}
    body: dict[str, Any] = {"plugins": [{"id": "web"}, parser]}
    assert taken(body) == SearchOptions()
    assert body == {"plugins": [parser]}
    assert taken(body) is None
    assert body == {"plugins": [parser]}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"use_search": 3}, "use_search"),
        ({"use_search": "yes"}, "use_search"),
        ({"web_search_options": []}, "web_search_options"),
        ({"web_search_options": {"search_context_size": 1}}, "web_search_options.search_context_size"),
        ({"web_search_options": {"user_location": "Bern"}}, "web_search_options.user_location"),
        ({"web_search_options": {"user_location": {"city": 1}}}, "web_search_options.user_location.city"),
        ({"plugins": {}}, "plugins"),
        ({"plugins": [3]}, "plugins.0"),
        ({"plugins": [{"id": "web", "max_results": 0}]}, "plugins.0.max_results"),
        (
            {"tools": [{"type": "openrouter:web_search", "parameters": {"max_results": "x"}}]},
            "tools.0.parameters.max_results",
        ),
    ],
)
def test_what_is_wrong_is_named(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        taken(asked)
    assert refused.value.param == field


MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("kimi", None, None),
        ("kimi-k3", SearchOptions(), SearchOptions()),
        ("kimi-search", None, SearchOptions(lines=True)),
        ("kimi-search-silent", None, SearchOptions()),
        ("kimi-silent", None, None),
        ("kimi-silent", SearchOptions(lines=True), SearchOptions()),
        ("kimi-research", None, SearchOptions(results=10, thorough=True, research=True, lines=True)),
        ("kimi-k3:online", None, SearchOptions(lines=True)),
    ],
)
def test_a_name_asks_for_a_search(
    name: str, before: SearchOptions | None, after: SearchOptions | None
) -> None:
    body = {"messages": MESSAGES}
    assert named.apply(name, body, before) == after
    assert body == {"messages": MESSAGES}


def test_a_name_makes_the_model_think_unless_the_client_says_otherwise() -> None:
    body: dict[str, Any] = {"messages": MESSAGES}
    named.apply("kimi-k1", body, None)
    assert body["thinking"] == {"type": "enabled"}
    for own in ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "low"}):
        body = {"messages": MESSAGES, **own}
        named.apply("kimi-k1", body, None)
        assert body == {"messages": MESSAGES, **own}


def test_math_puts_one_line_before_the_conversation() -> None:
    body: dict[str, Any] = {"messages": MESSAGES}
    named.apply("kimi-math", body, None)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["thinking"] == {"type": "enabled"}
