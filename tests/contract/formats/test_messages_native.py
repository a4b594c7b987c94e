"""The vendor's own Messages endpoint instead of the pivot's way: a client and the ledger see the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.pivot.call_ids import vendors
from support.exchange import CHARGED, NOT_CHARGED, ledger
from support.live import HELLO, LiveGateway
from support.messages_stream import folded
from upstream import (
    Cut,
    ErrorEvent,
    HtmlError,
    InTurn,
    Kimi,
    Malformed,
    ScriptedUpstream,
    Sse,
    Status,
    Step,
    error,
)
from upstream.kimi import REASONING, usage_of
from upstream.messages import SIGNATURE, events
from upstream.steps import rate_limited

Json = dict[str, Any]
TOOL = {"name": "get", "description": "Gets.", "input_schema": {"type": "object", "properties": {}}}
PNG = "iVBORw0KGgo="
ASK: Json = {"model": "kimi-k3", "max_tokens": 100, "messages": HELLO}
USED = [
    *HELLO,
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2Vh"},
        {"type": "text", "text": "Wait."},
        {"type": "tool_use", "id": "get_0", "name": "get", "input": {"a": [1, "ü"]}},
        {"type": "tool_use", "id": "get_1", "name": "get", "input": {}}]},
    {"role": "user", "content": [
        {"type": "text", "text": "Go on."},
        {"type": "tool_result", "tool_use_id": "get_1", "content": "no", "is_error": True},
        {"type": "tool_result", "tool_use_id": "get_0", "content": [
            {"type": "text", "text": "42"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]}]},
]  # fmt: skip
CALLS = [("get", {"city": "Roma", "unit": "°C"}), ("get", {})]
CASES: dict[str, tuple[Json, Kimi]] = {
    "text": ({}, Kimi(reasoning="")),
    "thinking": ({"thinking": {"type": "adaptive"}}, Kimi()),
    "no thinking": ({"thinking": {"type": "disabled"}}, Kimi()),
    "thinking without its text": ({"thinking": {"type": "adaptive", "display": "omitted"}}, Kimi()),
    "thinking alone": ({}, Kimi(text="")),
    "a cut answer": ({}, Kimi(finish="length")),
    "a call": ({"tools": [TOOL]}, Kimi(text="", tools=CALLS[:1])),
    "two calls and all else": ({"tools": [TOOL]}, Kimi(tools=CALLS)),
    "one call of two": (
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        Kimi(tools=CALLS),
    ),
    "a forced call": ({"tools": [TOOL], "tool_choice": {"type": "any"}}, Kimi(text="", tools=CALLS)),
    "a round of tools": ({"tools": [TOOL], "messages": USED}, Kimi()),
    "cached tokens": ({}, Kimi(usage=usage_of(30, 7, cached=12))),
    "a stop sequence": ({"stop_sequences": ["two"]}, Kimi(text="one, two, three")),
    "half of one": ({"stop_sequences": ["threes"]}, Kimi(text="one, two, three")),
    "a begun answer": (
        {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]}, Kimi(text=" 42."),
    ),
    "a prompt of many parts": (
        {
            "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "messages": [*HELLO, {"role": "system", "content": "c"}],
            "metadata": {"user_id": "u"},
            "temperature": 0.5,
            "top_k": 3,
            "service_tier": "auto",
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
            "output_config": {"effort": "medium"},
        },
        Kimi(),
    ),
    "an answer in JSON": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, Kimi(text="{}"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ways(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, LiveGateway]]:
    made = {way: LiveGateway(tmp_path_factory.mktemp(way), module_upstream.url, anthropic=way)
            for way in ("pivot", "native")}  # fmt: skip
    with made["pivot"], made["native"]:
        yield made


def asked(gateway: LiveGateway, key: str, stream: bool, **body: Any) -> tuple[int, Json]:
    with gateway.client(key) as client:
        answer = client.post("/v1/messages", json=ASK | body | {"stream": stream})
    if answer.status_code == 200 and stream:
        result = folded(answer.content)
        return 200, {"error": result.error} if result.error else result.message
    return answer.status_code, answer.json()


def plain(said: Json) -> Json:
    """Without what each answer has of its own: ids, and who signed."""
    text = re.sub(r"_kg\w{7}", "", json.dumps({**said, "id": "", "request_id": ""}))
    text = re.sub(r"req_[0-9a-f]{32}", "req", text)
    text = re.sub(rf"{re.escape(SIGNATURE)}|a2ltaS1nYXRld2F5|kg1\.[\w+/=]+", "S", text)
    for vendor in ("kimi_get-3a", "get_"):
        text = text.replace(vendor, "call ")
    made: Json = json.loads(text)
    return made


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_both_ways_say_the_same(
    ways: dict[str, LiveGateway], upstream: ScriptedUpstream, name: str, stream: bool
) -> None:
    body, step = CASES[name]
    upstream.always(step if step.usage else replace(step, usage=usage_of(20, 9)))
    seen = {}
    for way, gateway in ways.items():
        key = gateway.key(100)
        status, said = asked(gateway, key, stream, **body)
        (row,) = gateway.usage(key)
        counts = [said.pop("usage"), row.input, row.output]
        if said["stop_reason"] == "stop_sequence":  # the upstream was left before it could tell them
            counts = []
        seen[way] = (status, plain(said), ledger(gateway, key), counts)
    assert seen["native"] == seen["pivot"]
    assert seen["native"][0] == 200, seen["native"]
    assert (len(upstream.chats), len(upstream.native)) == (1, 1)


FAULTS: dict[str, list[Step]] = {
    "a token of the other region": [Status(401, error("invalid_authentication_error", "Invalid"))],
    "no money": [rate_limited("exceeded_current_quota")],
    "a limit": [rate_limited("rate_limit_reached", 30)],
    "a filter, in Anthropic's shape": [
        Status(
            400, {"type": "error", "error": {"type": "content_filter", "message": "risk"}, "request_id": "x"}
        )
    ],
    "HTML": [HtmlError()],
    "once broken, then well": [Status(500, error("server_error", "x")), Kimi()],
    "cut": [Cut(900)],
    "malformed": [Malformed(4)],
    "an error event": [ErrorEvent(4)],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_both_ways_fail_the_same(
    ways: dict[str, LiveGateway], upstream: ScriptedUpstream, name: str, stream: bool
) -> None:
    seen = {}
    for way, gateway in ways.items():
        upstream.forget()
        upstream.always(InTurn(FAULTS[name]))
        key = gateway.key(100)
        status, said = asked(gateway, key, stream)
        seen[way] = (status, plain(said).get("error"), ledger(gateway, key))
    assert seen["native"] == seen["pivot"]
    assert seen["native"][2] == (CHARGED if name == "once broken, then well" else NOT_CHARGED)
    assert len(upstream.native) == len(upstream.chats)


def test_the_vendors_seal_goes_out_and_comes_back(
    ways: dict[str, LiveGateway], upstream: ScriptedUpstream
) -> None:
    gateway = ways["native"]
    upstream.plan(Kimi(text="", tools=CALLS[:1]))
    _, said = asked(gateway, gateway.key(), False, tools=[TOOL])
    thinking, call = said["content"]
    assert thinking == {"type": "thinking", "thinking": REASONING, "signature": SIGNATURE}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "42"}
    history = [
        *HELLO,
        {"role": "assistant", "content": said["content"]},
        {"role": "user", "content": [result]},
    ]
    assert asked(gateway, gateway.key(), False, tools=[TOOL], messages=history)[0] == 200
    assert upstream.native[-1].body["messages"][1]["content"] == [
        thinking,
        call | {"id": vendors(call["id"])},
    ]


def test_a_model_that_the_endpoint_lacks_goes_the_other_way(
    ways: dict[str, LiveGateway], upstream: ScriptedUpstream
) -> None:
    gateway = ways["native"]
    assert asked(gateway, gateway.key(), False, model="kimi-k2")[0] == 200
    assert gateway.chat(gateway.key()).status_code == 200
    assert (len(upstream.chats), len(upstream.native)) == (2, 0)


def test_what_the_endpoint_gets(ways: dict[str, LiveGateway], upstream: ScriptedUpstream) -> None:
    gateway = ways["native"]
    body = CASES["a prompt of many parts"][0] | {
        "tools": [TOOL, TOOL | {"name": "put"}],
        "tool_choice": {"type": "tool", "name": "put"},
    }
    with gateway.client(
        gateway.key(), {"anthropic-beta": "x-1", "anthropic-version": "2099-01-01"}
    ) as client:
        assert client.post("/v1/messages?beta=true", json=ASK | body).status_code == 200
    (request,) = upstream.native
    sent = request.body
    assert request.token == "sk-upstream-1"
    assert sent["system"] == body["system"]
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "c"}]}
    ]
    assert sent["tools"] == [TOOL | {"name": "put"}]
    assert sent["tool_choice"] == {"type": "any"}
    assert sent["output_config"] == {"effort": "high"}
    assert sent["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert (sent["max_tokens"], sent["stream"], sent["model"]) == (100, True, "kimi-k3")
    assert sent["metadata"]["user_id"] != "u"


def test_an_answer_without_its_last_event_but_with_a_stop_reason_is_whole(
    ways: dict[str, LiveGateway], upstream: ScriptedUpstream
) -> None:
    told = events("Hello", None, (), usage=usage_of(3, 1), model="kimi-k3", finish=None, pieces=2)
    gateway = ways["native"]
    for without, price in ((1, CHARGED), (2, NOT_CHARGED)):
        upstream.always(Sse(told[:-without], done=False))
        key = gateway.key(100)
        assert ("error" in asked(gateway, key, True)[1]) == (price is NOT_CHARGED)
        assert ledger(gateway, key) == price
