"""Tools on their way upstream and back, row by row of docs/contract.md: choices, names, schemas, numbers.
The upstream refuses what the vendor refuses, so a 200 is half of each proof.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.error_shape import openai_error
from support.live import HELLO, LiveGateway, events
from support.tool_loop import ChatLoop
from upstream import Kimi, ScriptedUpstream

Json = dict[str, Any]
K26, K27, K3 = "kimi-k2.6", "kimi-k2.7-code", "kimi-k3"
OFF = {"thinking": {"type": "disabled"}}
NOTHING = {"type": "object", "properties": {}}
WEATHER = {"type": "function", "function": {"name": "weather"}}
SENT_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,127}")


def tool(name: str, parameters: Json | None = None) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": parameters or NOTHING}}


TOOLS = [tool("time"), tool("weather")]
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [WEATHER]},
}
# model, what else, the client's choice → the choice that is sent, the tools that are, and whether a line asks
CHOICES: dict[str, tuple[str, Json, Any, Any, list[str], bool]] = {
    "K3 takes required": (K3, {}, "required", "required", ["time", "weather"], False),
    "K3 is forced by the one tool that is left": (K3, {}, WEATHER, "required", ["weather"], False),
    "K2.7 is asked for a call": (K27, {}, "required", "auto", ["time", "weather"], True),
    "K2.7 is asked for the one that is left": (K27, {}, WEATHER, "auto", ["weather"], True),
    "K2.6 is asked for it while it thinks": (K26, {}, WEATHER, "auto", ["weather"], True),
    "K2.6 takes a name while it does not": (K26, OFF, WEATHER, WEATHER, ["time", "weather"], False),
    "K2.6 is asked for any while it does not": (K26, OFF, "required", "auto", ["time", "weather"], True),
    "kimi-k2 takes a name": ("kimi-k2", {}, WEATHER, WEATHER, ["time", "weather"], False),
    "one of those allowed, by force": (K3, {}, ALLOWED, "required", ["weather"], False),
    "one of those allowed, by name": (K26, OFF, ALLOWED, WEATHER, ["time", "weather"], False),
    "auto is left": (K27, {}, "auto", "auto", ["time", "weather"], False),
    "none is left": (K26, {}, "none", "none", ["time", "weather"], False),
}


@pytest.mark.parametrize("row", CHOICES)
def test_a_choice_is_sent_as_strongly_as_the_model_takes_it(
    gateway: LiveGateway, upstream: ScriptedUpstream, row: str
) -> None:
    model, more, choice, sent, names, asked = CHOICES[row]
    answer = gateway.chat(gateway.key(), model=model, tools=TOOLS, tool_choice=choice, **more)
    assert answer.status_code == 200, answer.text
    body = upstream.chats[0].body
    assert body["tool_choice"] == sent
    assert [tool["function"]["name"] for tool in body["tools"]] == names
    assert body["messages"][: len(HELLO)] == HELLO
    lines = body["messages"][len(HELLO) :]
    assert [line["role"] for line in lines] == ["system"] * asked
    assert not asked or ("weather" in lines[0]["content"]) == (len(names) == 1)


def test_one_tool_that_is_required_is_named_where_the_model_takes_a_name(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    answer = gateway.chat(gateway.key(), model="kimi-k2", tools=[tool("weather")], tool_choice="required")
    assert answer.status_code == 200, answer.text
    assert upstream.chats[0].body["tool_choice"] == WEATHER


def test_the_line_that_asks_stands_before_a_partial_message(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    begun = {"role": "assistant", "content": "I", "partial": True}
    answer = gateway.chat(
        gateway.key(), model=K27, tools=TOOLS, tool_choice="required", messages=[*HELLO, begun]
    )
    assert answer.status_code == 200, answer.text
    assert [message["role"] for message in upstream.chats[0].body["messages"]] == [
        "user",
        "system",
        "assistant",
    ]


def answered(properties: Json, **more: Any) -> Json:
    schema = {"type": "object", "properties": properties, **more}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


ANSWER = "response_format.json_schema.schema"
REFUSED: dict[str, tuple[Json, str]] = {
    "a choice of a tool that is not there": ({"tools": TOOLS, "tool_choice": tool("other")}, "tool_choice"),
    "a forced choice without tools": ({"tool_choice": "required"}, "tool_choice"),
    "129 tools": ({"tools": [tool(f"tool_{number}") for number in range(129)]}, "tools"),
    "a reference to elsewhere": (
        answered({"x": {"$ref": "https://a.test/b.json"}}),
        f"{ANSWER}.properties.x.$ref",
    ),
    "a reference to nothing": (answered({"x": {"$ref": "#/$defs/X"}}), f"{ANSWER}.properties.x.$ref"),
    "a document without an end": (answered({"x": {"$ref": "#"}}, required=["x"]), ANSWER),
    "a type that is none": (answered({"x": {"type": "text"}}), f"{ANSWER}.properties.x.type"),
    "a name that is reserved": (answered({"required": {"type": "string"}}), ANSWER),
    "600 values": (answered({"x": {"enum": [f"{at}" for at in range(600)]}}), ANSWER),
    "an answer's schema that is no object": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "array", "items": {"type": "string"}}},
            }
        },
        "response_format.json_schema.schema.type",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_before_the_upstream_with_the_place(
    gateway: LiveGateway, upstream: ScriptedUpstream, row: str
) -> None:
    body, place = REFUSED[row]
    for model in (K3, K27):
        key = gateway.key(5)
        answer = gateway.chat(key, model=model, **body)
        assert answer.status_code == 400, answer.text
        assert openai_error(answer.json())["param"] == place
        assert answer.json()["error"]["message"].startswith(place)
        assert gateway.account(key).credits == 5
    assert not upstream.chats


def test_128_tools_pass(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    tools = [tool(f"tool_{number}") for number in range(128)]
    assert gateway.chat(gateway.key(), tools=tools).status_code == 200
    assert upstream.chats[0].body["tools"] == tools


ODD = ["1st", "server.read", "a" * 129, "größe", "read file", "mcp:tool/x", "工具", "$own"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_a_name_that_the_vendor_refuses_goes_under_another_and_comes_back(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str, stream: bool
) -> None:
    key, tools = gateway.key(None), [tool("plain"), tool(name)]
    assert gateway.chat(key, tools=tools).status_code == 200
    sent = upstream.chats[0].body["tools"][1]["function"]["name"]
    assert SENT_NAME.fullmatch(sent)
    upstream.always(Kimi(text="", tools=((sent, {"n": 1}), ("plain", {}))))
    answer = gateway.chat(key, tools=tools, tool_choice=tool(name), stream=stream)
    names = (
        [
            piece["function"]["name"]
            for data in events(answer.text)[:-1]
            for choice in json.loads(data)["choices"]
            for piece in choice["delta"].get("tool_calls") or ()
            if "name" in piece["function"]
        ]
        if stream
        else [call["function"]["name"] for call in answer.json()["choices"][0]["message"]["tool_calls"]]
    )
    assert names == [name, "plain"]
    assert [tool["function"]["name"] for tool in upstream.chats[1].body["tools"]] == [sent]
    call = {"id": "x:0", "type": "function", "function": {"name": name, "arguments": "{}"}}
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x:0", "name": name, "content": "1"},
    ]
    assert gateway.chat(key, messages=history).status_code == 200  # and without the tools
    _, called, result = upstream.chats[2].body["messages"]
    assert (called["tool_calls"][0]["function"]["name"], result["name"]) == (sent, sent)


def test_two_names_never_become_one(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key()
    gateway.chat(key, tools=[tool("a.b")])
    (sent,) = (each["function"]["name"] for each in upstream.chats[0].body["tools"])
    names = ["a.b", "a:b", "a b", "a_b", sent]
    assert gateway.chat(key, tools=[tool(name) for name in names]).status_code == 200
    became = [each["function"]["name"] for each in upstream.chats[1].body["tools"]]
    assert len(set(became)) == len(names)
    assert became[3:] == ["a_b", sent]


def test_the_vendors_own_tools_pass_untouched(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    own = {"type": "builtin_function", "function": {"name": "$convert"}}
    call = {"id": "$convert:0", "type": "function", "function": {"name": "$convert", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "reasoning_content": "s", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "$convert:0", "name": "$convert", "content": "{}"},
    ]
    upstream.strict = False  # whose rule for names in the history is for functions
    try:
        answer = gateway.chat(gateway.key(), tools=[own, tool("a.b")], messages=messages)
    finally:
        upstream.strict = True
    assert answer.status_code == 200, answer.text
    body = upstream.chats[0].body
    assert body["tools"][0] == own
    assert body["messages"] == messages


def test_tools_that_a_system_message_brings_are_made_fit_too(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    dirty = tool("a.b", {"type": "object", "properties": {"x": {"type": "string", "format": "date"}}})
    messages = [{"role": "system", "tools": [dirty]}, *HELLO]
    answer = gateway.chat(gateway.key(), messages=messages, tool_choice=tool("a.b"))
    assert answer.status_code == 200, answer.text
    body = upstream.chats[0].body
    (sent,) = body["messages"][0]["tools"]
    assert sent["function"]["name"].startswith("a_b_")
    assert sent["function"]["parameters"]["properties"]["x"] == {
        "type": "string",
        "description": '(format: "date")',
    }
    assert body["tool_choice"] == "required"


def test_clean_tools_pass_in_the_clients_own_words(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    clean = tool("a", {"type": "object", "properties": {"x": {"type": "string", "description": "é"}}})
    raw = json.dumps({"model": K3, "messages": HELLO, "tools": [clean]}, indent=1)
    with gateway.client(gateway.key()) as client:
        assert client.post("/v1/chat/completions", content=raw.encode()).status_code == 200
    assert json.dumps([clean], indent=1).replace("\n", "\n ").encode() in upstream.chats[0].raw


def test_names_and_schemas_hold_through_a_loop(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    loop = ChatLoop(gateway.key(None), K26)
    for turn in range(3):
        upstream.plan(Kimi(text="", reasoning=f"Thought {turn}", tools=(("step", {"n": turn}),)))
        loop.turn(gateway, stream=True)
    prefix = [chat.raw[: chat.raw.index(b'"Begin')] for chat in upstream.chats]
    assert prefix == prefix[:1] * 3
