"""What each field of a Responses request becomes, and what is refused by its name."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.search import SearchOptions
from support.responding import read, sent

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {"type": "function", "name": "look", "parameters": SCHEMA}
HELLO = {"role": "user", "content": "Hello"}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


LOOK = function("look", parameters=SCHEMA)
BECOMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a string": ({}, {"messages": [HELLO]}),
    "instructions go first": (
        {"instructions": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
    ),
    "a limit": ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    "sampling": ({"temperature": 1.5, "top_p": 0.1}, {"temperature": 1.5, "top_p": 0.1}),
    "effort": ({"reasoning": {"effort": "xhigh", "summary": "auto"}}, {"reasoning_effort": "xhigh"}),
    "a cache key": ({"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
    "an identifier": ({"safety_identifier": "s", "user": "u"}, {"safety_identifier": "s"}),
    "a user": ({"user": "u"}, {"safety_identifier": hashlib.sha256(b"u").hexdigest()}),
    "logprobs": ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    "top logprobs": ({"top_logprobs": 2}, {"top_logprobs": 2, "logprobs": True}),
    "plain text": ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {}),
    "an object": (
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "a schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    "a schema without a name": (
        {"text": {"format": {"type": "json_schema", "schema": SCHEMA, "strict": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}}},
    ),
    "a function": (
        {"tools": [{**FUNCTION, "description": "d", "strict": False}]},
        {"tools": [function("look", description="d", parameters=SCHEMA, strict=False)]},
    ),
    "a function with nulls": (
        {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": None}]},
        {"tools": [function("f")]},
    ),
    "the vendor's own": (
        {"tools": [{"type": "builtin_function", "function": {"name": "$excel"}}]},
        {"tools": [{"type": "builtin_function", "function": {"name": "$excel"}}]},
    ),
    "a choice": (
        {"tools": [FUNCTION], "tool_choice": "required"},
        {"tools": [LOOK], "tool_choice": "required"},
    ),
    "a named choice": (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "look"}},
        {"tools": [LOOK], "tool_choice": function("look")},
    ),
    "allowed tools": (
        {
            "tools": [FUNCTION, {"type": "web_search"}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "look"}, {"type": "web_search"}],
            },
        },
        {
            "tools": [LOOK],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [function("look")]},
            },
        },
    ),
    "none of them allowed": (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
        {"tools": [LOOK], "tool_choice": "none"},
    ),
    "what clients say by habit": (
        {
            "store": True,
            "background": False,
            "parallel_tool_calls": False,
            "service_tier": "auto",
            "truncation": "auto",
            "metadata": {"a": "b"},
            "client_metadata": {"id": "secret"},
            "stream_options": {"include_obfuscation": False},
            "max_tool_calls": 3,
            "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
            "conversation": None,
            "prompt": None,
            "previous_response_id": None,
            "x_unknown": [1],
        },
        {},
    ),
}


@pytest.mark.parametrize("case", BECOMES)
def test_a_request_becomes_a_chat(case: str) -> None:
    body, expected = BECOMES[case]
    assert sent(**body) == {"model": "kimi-k3", "messages": [HELLO], **expected}


def test_a_custom_tool_is_a_function_of_one_text_that_tells_its_grammar() -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    (tool,) = sent(tools=[{"type": "custom", "name": "patch", "description": "Patches.", "format": form}])[
        "tools"
    ]
    told = tool["function"]
    assert (tool["type"], told["name"], told["strict"]) == ("function", "patch", False)
    assert told["description"] == "Patches.\n\nThe input must follow this grammar (lark):\nstart: WORD"
    assert told["parameters"]["required"] == ["input"]
    assert told["parameters"]["properties"]["input"]["type"] == "string"


def test_the_tools_of_a_namespace_have_its_name_before_theirs_and_one_its_description() -> None:
    named = {
        "type": "namespace",
        "name": "files",
        "description": "For files.",
        "tools": [
            {"type": "function", "name": "read", "description": "Reads."},
            {"type": "custom", "name": "write"},
        ],
    }
    first, second = sent(tools=[named])["tools"]
    assert first["function"] == {"name": "files__read", "description": "For files.\n\nReads."}
    assert second["function"]["name"] == "files__write"
    choice = {"type": "custom", "name": "write", "namespace": "files"}
    assert sent(tools=[named], tool_choice=choice)["tool_choice"] == function("files__write")


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"tools": [{"type": "web_search_preview"}]}, SearchOptions()),
        ({"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, SearchOptions()),
        (
            {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
            SearchOptions(forced=True),
        ),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, SearchOptions(forced=True)),
        ({"tools": [{"type": "web_search"}], "tool_choice": "none"}, None),
        (
            {
                "tools": [
                    {
                        "type": "web_search_2025_08_26",
                        "filters": {"allowed_domains": ["a.example"]},
                        "search_context_size": "low",
                        "user_location": {"type": "approximate", "country": "CH", "city": None},
                    }
                ]
            },
            SearchOptions(results=3, allowed=("a.example",), location="CH"),
        ),
    ],
)
def test_a_hosted_search_is_asked_of_the_gateway(body: dict[str, Any], options: SearchOptions | None) -> None:
    chat = read(body).chat
    assert chat.search == options
    assert "tools" not in chat.body
    assert "tool_choice" not in chat.body


def test_a_hosted_tool_is_left_out_and_named() -> None:
    tools = [{"type": "web_search", "external_web_access": False}, FUNCTION]
    chat = read({"tools": tools, "tool_choice": "auto"}).chat
    assert chat.body["tools"] == [LOOK]
    assert chat.search is not None
    assert (chat.ignored, chat.search.asked_by) == ((), ("tools.web_search",))
    assert "tools" not in sent(tools=[{"type": "web_search"}], tool_choice="auto")
    several = [{"type": "mcp", "server_label": str(at)} for at in range(50)]
    assert read({"tools": several}).chat.ignored == ("tools.mcp",), "once in a request"


def test_tools_that_come_with_the_input_join_the_others() -> None:
    item = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "late"}]}
    body = sent(input=[HELLO, item], tools=[FUNCTION], tool_choice={"type": "function", "name": "late"})
    assert body["tools"] == [LOOK, function("late")]
    assert body["tool_choice"] == function("late")


def test_what_codex_sends_is_a_chat() -> None:
    """The shapes that Codex 0.169 sent: for a model that it does not know, and for one that it does."""
    stateless = {
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "parallel_tool_calls": True,
        "prompt_cache_key": "thread",
        "client_metadata": {"session_id": "s"},
        "tool_choice": "auto",
    }
    said = [
        {"type": "message", "id": "msg_1", "role": role, "content": [{"type": "input_text", "text": text}]}
        for role, text in (("developer", "You are Codex."), ("user", "Do it"))
    ]
    shell = {"type": "function", "name": "exec_command", "strict": False, "parameters": SCHEMA}
    agents = {
        "type": "namespace",
        "name": "agents",
        "description": "Agents.",
        "tools": [{**FUNCTION, "name": "spawn"}],
    }
    run = {
        "type": "namespace",
        "name": "functions",
        "description": "",
        "tools": [{"type": "custom", "name": "exec"}],
    }
    tools = [shell, agents, {"type": "web_search", "external_web_access": False}]
    old = sent(**stateless, input=said, tools=tools, reasoning={"summary": "auto"})
    late = {"type": "additional_tools", "role": "developer", "tools": [run, agents]}
    new = sent(**stateless, input=[late, *said], reasoning={"effort": "medium", "context": "all_turns"})
    assert (
        old["messages"]
        == new["messages"]
        == [
            {"role": "system", "content": "You are Codex."},
            {"role": "user", "content": "Do it"},
        ]
    )
    names = [[tool["function"]["name"] for tool in body["tools"]] for body in (old, new)]
    assert names == [["exec_command", "agents__spawn"], ["functions__exec", "agents__spawn"]]
    assert (old["prompt_cache_key"], old["tool_choice"], new["reasoning_effort"]) == (
        "thread",
        "auto",
        "medium",
    )
    assert old.keys() == {"model", "messages", "tools", "tool_choice", "prompt_cache_key"}


def test_of_tools_that_come_with_the_input_the_newest_of_a_name_holds() -> None:
    def late(*tools: dict[str, Any]) -> dict[str, Any]:
        return {"type": "additional_tools", "role": "developer", "tools": list(tools)}

    newest = {"type": "custom", "name": "look", "description": "Anew."}
    given = [late({"type": "function", "name": "f"}), HELLO, late(newest, {"type": "function", "name": "g"})]
    body = sent(input=given, tools=[FUNCTION, {"type": "builtin_function", "function": {"name": "$excel"}}])
    assert [tool["function"]["name"] for tool in body["tools"]] == ["$excel", "f", "look", "g"]
    assert body["tools"][2]["function"]["description"] == "Anew."


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "a blank model": ({"model": " "}, "model"),
    "no input": ({"input": None}, "input"),
    "an empty input": ({"input": []}, "input"),
    "an input of nothing": ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    "an input of another type": ({"input": {"role": "user"}}, "input"),
    "background": ({"background": True}, "background"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "an answer that is not kept": ({"previous_response_id": "resp_ff"}, "previous_response_id"),
    "an item that is not kept": ({"input": [{"type": "item_reference", "id": "msg_ff_0"}]}, "input.0.id"),
    "an item by its id alone": ({"input": [{"id": "fc_1"}]}, "input.0.id"),
    "a tool to be found later": ({"tools": [{**FUNCTION, "defer_loading": True}]}, "tools.0.defer_loading"),
    "such a one in a namespace": (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{**FUNCTION, "defer_loading": True}]}]},
        "tools.0.tools.0.defer_loading",
    ),
    "two tools of one name": ({"tools": [FUNCTION, {"type": "custom", "name": "look"}]}, "tools.1.name"),
    "a tool without a name": ({"tools": [{"type": "function"}]}, "tools.0.name"),
    "a tool without a type": ({"tools": [{"name": "f"}]}, "tools.0.type"),
    "a namespace described by a number": (
        {"tools": [{"type": "namespace", "name": "n", "description": 1, "tools": []}]},
        "tools.0.description",
    ),
    "a choice of another word": ({"tool_choice": "any"}, "tool_choice"),
    "a choice of nothing": ({"tool_choice": "required"}, "tool_choice"),
    "a choice of a tool that is not there": (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
        "tool_choice.name",
    ),
    "a choice of a hosted tool": ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    "a forced choice of a hosted tool": (
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        },
        "tool_choice.tools",
    ),
    "temperature": ({"temperature": 2.1}, "temperature"),
    "top_p": ({"top_p": "1"}, "top_p"),
    "a limit of nothing": ({"max_output_tokens": 0}, "max_output_tokens"),
    "top logprobs": ({"top_logprobs": 21}, "top_logprobs"),
    "truncation": ({"truncation": 1}, "truncation"),
    "stream": ({"stream": "yes"}, "stream"),
    "include": ({"include": [1]}, "include.0"),
    "effort": ({"reasoning": {"effort": 3}}, "reasoning.effort"),
    "a format": ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    "a format without its schema": ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_naming_the_field(case: str) -> None:
    body, field = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    assert caught.value.param == field
    assert caught.value.message.startswith(f"{field}: ") or field in ("model", "input")
