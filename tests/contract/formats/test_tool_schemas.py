"""Schemas of tools as clients send them in each format, before an upstream that refuses what the vendor's
validator refuses: none ends a request, and what could not be said is named.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from support.exchange import ask
from support.formats import CHAT, EACH, MESSAGES, MODES, RESPONSES, Format
from support.live import LiveGateway
from upstream import Kimi, ScriptedUpstream

Json = dict[str, Any]
STRING = {"type": "string"}
GOOD = {"type": "object", "properties": {"city": STRING}, "required": ["city"]}


def offered(format: Format, name: str, schema: Any) -> Json:
    if format is CHAT:
        return {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}
    if format is MESSAGES:
        return {"name": name, "input_schema": schema}
    return {"type": "function", "name": name, "parameters": schema, "strict": True}


def sent(upstream: ScriptedUpstream) -> dict[str, Json]:
    functions = [tool["function"] for tool in upstream.chats[-1].body["tools"]]
    return {function["name"]: function["parameters"] for function in functions}


def holding(schema: Any) -> Json:
    return {"type": "object", "properties": {"x": schema, "y": STRING}, "required": ["x"]}


def nested(depth: int) -> Json:
    schema: Json = STRING
    for at in range(depth):
        schema = {"type": "object", "properties": {f"l{at}": schema}}
    return schema


BAD: dict[str, Any] = {
    "a string": "no schema",
    "a list": [1, 2],
    "a root that is an array": {"type": "array", "items": STRING},
    "a reference to elsewhere": holding({"$ref": "https://a.test/b.json"}),
    "a type that is none": holding({"type": "text"}),
    "no end": holding({"$ref": "#"}),
    "nothing that satisfies it": holding({"allOf": [{"type": "integer"}, STRING]}),
    "twelve levels": nested(12),
    "600 values": holding({"enum": [f"v{at}" for at in range(600)]}),
    "2,000 properties": {"type": "object", "properties": {f"p{at}": STRING for at in range(2_000)}},
    "too much work": {"allOf": [{"required": [f"r{at}"]} for at in range(9_000)]},
}


@EACH
@pytest.mark.parametrize("row", BAD)
def test_one_bad_tool_never_refuses_the_request(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, row: str
) -> None:
    tools = [offered(format, "good", GOOD), offered(format, "bad", BAD[row])]
    asked = ask(gateway, False, format=format, model="kimi-k2.7-code", tools=tools)
    assert asked.seen.status == 200, asked.seen.text
    assert asked.seen.headers["x-param-ignored"] == "tools.bad.parameters"
    assert sent(upstream)["good"] == GOOD
    assert sent(upstream)["bad"]["type"] == "object"


KEPT: dict[str, tuple[Any, Json]] = {
    "alternatives at the root": (
        {
            "type": "object",
            "anyOf": [
                {"properties": {"name": STRING, "text": STRING}, "required": ["name", "text"]},
                {"properties": {"name": STRING, "url": STRING}, "required": ["name", "url"]},
            ],
        },
        {
            "type": "object",
            "properties": {"name": STRING, "text": STRING, "url": STRING},
            "required": ["name"],
            "description": "(One of these forms: name, text; or name, url.)",
        },
    ),
    "values under a type that none has": (
        holding({"type": "object", "enum": ["move", "copy"]}),
        holding({"type": "string", "enum": ["move", "copy"]}),
    ),
    "two ifs": (
        {
            "type": "object",
            "properties": {"a": STRING},
            "allOf": [
                {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
                {"if": {"required": ["b"]}, "then": {"required": ["c"]}},
            ],
        },
        {
            "type": "object",
            "properties": {"a": STRING},
            "description": '(if: {"required": ["a"]}) (then: {"required": ["b"]}) '
            '(if: {"required": ["b"]}) (then: {"required": ["c"]})',
        },
    ),
    "two nots": (
        holding(
            {
                "type": "string",
                "description": "D.",
                "allOf": [{"not": {"const": "a"}}, {"not": {"const": "b"}}],
            }
        ),
        holding({"type": "string", "description": 'D. (not: {"const": "a"}) (not: {"const": "b"})'}),
    ),
    "a contradiction inside a list": (
        holding({"type": "array", "items": {"allOf": [{"type": "integer"}, STRING]}}),
        holding(
            {"type": "array", "description": '(items: {"allOf": [{"type": "integer"}, {"type": "string"}]})'}
        ),
    ),
}


@pytest.mark.parametrize("row", KEPT)
def test_what_can_be_said_is_said(gateway: LiveGateway, upstream: ScriptedUpstream, row: str) -> None:
    given, said = KEPT[row]
    answer = gateway.chat(gateway.key(), tools=[offered(CHAT, "abc", given)])
    assert answer.status_code == 200, answer.text
    assert sent(upstream)["abc"] == said
    assert "x-param-ignored" not in answer.headers


RESERVED = {
    "type": "object",
    "properties": {
        "required": {"type": "boolean"},
        "required_": STRING,
        "list": {"type": "array", "items": {"type": "object", "properties": {"$ref": STRING}}},
    },
    "required": ["required"],
}
ARGUMENTS = {"required": True, "required_": "required", "list": [{"$ref": 'a"required_":'}], "x": "é" * 300}
UPSTREAM = {"required_": True, "required__": "required", "list": [{"$ref_": 'a"required_":'}], "x": "é" * 300}


def called(format: Format, text: str, stream: bool) -> Json:
    """The arguments of the one call, as the client reads them."""
    if not stream:
        body = json.loads(text)
        if format is CHAT:
            arguments = body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
        elif format is MESSAGES:
            return next(block["input"] for block in body["content"] if block["type"] == "tool_use")
        else:
            arguments = next(item for item in body["output"] if item["type"] == "function_call")["arguments"]
        return json.loads(arguments)
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    bodies = [json.loads(line) for line in lines]
    if format is CHAT:
        deltas = [
            call
            for body in bodies
            for choice in body["choices"]
            for call in choice["delta"].get("tool_calls", ())
        ]
        return json.loads("".join(call["function"].get("arguments", "") for call in deltas))
    if format is MESSAGES:
        pieces = [
            body["delta"].get("partial_json", "") for body in bodies if body["type"] == "content_block_delta"
        ]
        return json.loads("".join(pieces))
    deltas = [body["delta"] for body in bodies if body["type"] == "response.function_call_arguments.delta"]
    return json.loads("".join(deltas))


@EACH
@MODES
def test_reserved_names_of_properties_come_back_in_calls(
    gateway: LiveGateway, upstream: ScriptedUpstream, format: Format, stream: bool
) -> None:
    upstream.plan(Kimi(text="", tools=(("abc", UPSTREAM),)))
    asked = ask(
        gateway, stream, format=format, model="kimi-k2.7-code", tools=[offered(format, "abc", RESERVED)]
    )
    assert asked.seen.status == 200, asked.seen.text
    properties = sent(upstream)["abc"]["properties"]
    assert list(properties) == ["required_", "required__", "list"]
    assert list(properties["list"]["items"]["properties"]) == ["$ref_"]
    assert called(format, asked.seen.text, stream) == ARGUMENTS


def test_reserved_names_of_properties_go_into_the_history(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    text = json.dumps(ARGUMENTS, indent=1)
    call = {"id": "abc:0", "type": "function", "function": {"name": "abc", "arguments": text}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "reasoning_content": "So.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abc:0", "content": "1"},
    ]
    key = gateway.key()
    for _ in range(2):
        tools = [offered(CHAT, "abc", RESERVED)]
        assert gateway.chat(key, messages=messages, tools=tools).status_code == 200
    first, second = (
        chat.body["messages"][1]["tool_calls"][0]["function"]["arguments"] for chat in upstream.chats
    )
    assert first == second == json.dumps(UPSTREAM, indent=1)


def test_names_that_fill_all_digests_end(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """Once an endless loop: each name that would be given to the odd one is there already."""
    digest = hashlib.sha256(b"a b").hexdigest()
    names = [f"a_b_{digest[:digits]}" for digits in range(12, 65)]
    tools = [offered(CHAT, name, GOOD) for name in [*names, "a b"]]
    assert gateway.chat(gateway.key(), tools=tools).status_code == 200
    assert len(sent(upstream)) == len(tools)


def test_a_name_of_which_nothing_is_readable_gets_a_describing_one(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key()
    for names in (["工具", "天气"], ["天气", "工具"]):
        gateway.chat(key, tools=[offered(CHAT, name, GOOD) for name in names])
    first, second = ([tool["function"]["name"] for tool in chat.body["tools"]] for chat in upstream.chats)
    assert all(name.startswith("tool_") for name in first)
    assert first == second[::-1]
    assert len(set(first)) == 2


NAMED = {
    "/v1/chat/completions": {"reasoning_effort": "low"},
    "/v1/responses": {"reasoning": {"effort": "low"}},
}


@pytest.mark.parametrize("path", NAMED)
def test_what_a_model_cannot_be_told_is_named_as_the_client_called_it(
    gateway: LiveGateway, path: str
) -> None:
    format = next(each for each in (CHAT, RESPONSES) if each.path == path)
    asked = ask(gateway, False, format=format, model="kimi-k2.7-code", **NAMED[path])
    named = {"/v1/chat/completions": "reasoning_effort", "/v1/responses": "reasoning.effort"}
    assert asked.seen.headers["x-param-ignored"] == named[path]


def test_small_tools_behind_costly_ones_are_whole(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    costly = [offered(CHAT, f"bad{at}", {**BAD["too much work"], "title": f"{at}"}) for at in range(3)]
    answer = gateway.chat(gateway.key(), tools=[*costly, offered(CHAT, "good", GOOD)])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-param-ignored"] == ", ".join(f"tools.bad{at}.parameters" for at in range(3))
    assert sent(upstream)["good"] == GOOD
