"""The official OpenAI SDK's Responses, unchanged, against the gateway on a socket."""

from __future__ import annotations

import json
import threading
from typing import Any

import pydantic
import pytest

from clients.sdk import REFUSALS, Connect, HeldBack, Sdk
from kimi_gateway.pivot.call_ids import vendors
from support import sdks
from support.live import LiveGateway
from support.response_events import Checker
from upstream import ErrorEvent, Kimi, ScriptedUpstream
from upstream.kimi import REASONING, TEXT


def plain(response: Any) -> dict[str, Any]:
    """What a response says, without what differs from answer to answer."""
    said: dict[str, Any] = response.to_dict()
    own = said.pop("id").removeprefix("resp_")
    for name in ("created_at", "completed_at"):
        said.pop(name)
    for item in said["output"]:
        item["id"] = item["id"].replace(own, "own")
        if "call_id" in item:
            item["call_id"] = vendors(item["call_id"])
        for part in item.get("content") or ():
            part.pop("parsed", None)
        item.pop("parsed_arguments", None)
    return said


TOOLS: Any = [
    {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    },
    {"type": "custom", "name": "run_code", "description": "Runs it."},
]
CALLS = [("get_weather", {"city": "Roma", "unit": "°C"}), ("run_code", {"input": 'print("così")\n'})]


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
@pytest.mark.parametrize(
    "step",
    [Kimi(), Kimi(text="Look.", tools=CALLS), Kimi("Cut", finish="length")],
    ids=["text", "calls", "cut"],
)
def test_the_sdk_accumulates_a_stream_to_the_json_answer(
    connect: Connect, upstream: ScriptedUpstream, base: str, step: Kimi
) -> None:
    sdk = connect(base=base)
    upstream.always(step)
    whole = sdk.respond(tools=TOOLS)
    events = sdk.events(tools=TOOLS)
    checker = Checker()
    checker.feed([event.to_dict() for event in events])
    assert plain(events[-1].response) == plain(whole)
    assert whole.output_text == step.text
    assert whole.status == ("incomplete" if step.finish else "completed")
    if not step.finish:
        _, summed = sdk.responded(tools=TOOLS)
        assert plain(summed) == plain(whole)


def test_the_sdks_snapshots_grow_with_the_deltas(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.always(Kimi(text="Look.", tools=[*CALLS[:1], ("get_weather", {"city": "Oslo"})]))
    events, response = sdk.responded(tools=TOOLS)
    texts = [event for event in events if event.type == "response.output_text.delta"]
    assert texts[-1].snapshot == "Look." == "".join(event.delta for event in texts)
    arguments: dict[int, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            arguments[event.output_index] = event.snapshot
    assert [json.loads(arguments[index]) for index in sorted(arguments)] == [CALLS[0][1], {"city": "Oslo"}]
    assert [item.type for item in response.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]


def test_text_arrives_while_the_upstream_is_still_sending(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    go, seen = threading.Event(), list[str]()
    upstream.plan(HeldBack(go, inner=Kimi(reasoning="")))

    def see(event: Any) -> None:
        if event.type == "response.output_text.delta" and not go.is_set():
            assert not upstream.chats[0].answered.is_set()
            seen.append(event.delta)
            go.set()

    events = sdk.events(see)
    assert seen
    assert events[-1].response.output_text == TEXT
    assert seen[0] != TEXT


def test_tools_go_round_with_the_items_of_the_answer_sent_back(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.plan(Kimi(text="Look.", reasoning="Both at once.", tools=CALLS), Kimi(text="Sunny."))
    given: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = sdk.respond(input=given, tools=TOOLS, include=["reasoning.encrypted_content"], store=False)
    weather, code = first.output[2:]
    assert (weather.name, json.loads(weather.arguments)) == CALLS[0]
    assert (code.name, code.input) == ("run_code", CALLS[1][1]["input"])
    outputs = [
        {"type": "function_call_output", "call_id": weather.call_id, "output": "20 °C"},
        {"type": "custom_tool_call_output", "call_id": code.call_id, "output": "così"},
    ]
    second = sdk.respond(input=[*given, *first.output, *outputs], tools=TOOLS, store=False)
    assert second.output_text == "Sunny."
    _, called, told, printed = upstream.chats[1].body["messages"]
    assert (called["content"], called["reasoning_content"]) == ("Look.", "Both at once.")
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in called["tool_calls"]
    ]
    assert calls == CALLS
    assert [told["content"], printed["content"]] == ["20 °C", "così"]
    assert [told["tool_call_id"], printed["tool_call_id"]] == [call["id"] for call in called["tool_calls"]]


class City(pydantic.BaseModel):
    name: str
    people: int


def test_an_answer_is_parsed_into_the_model_that_was_asked_for(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.always(Kimi(text='{"name": "Roma", "people": 2750000}'))
    parsed = sdk.parsed(text_format=City)
    assert parsed.output_parsed == City(name="Roma", people=2750000)
    form = upstream.chats[0].body["response_format"]
    assert (form["type"], form["json_schema"]["name"]) == ("json_schema", "City")
    assert form["json_schema"]["schema"]["required"] == ["name", "people"]
    _, response = sdk.responded(text_format=City)
    assert response.output_parsed == City(name="Roma", people=2750000)


def test_reasoning_is_shown_as_the_summary_and_usage_counts_it_all(
    sdk: Sdk, upstream: ScriptedUpstream
) -> None:
    usage = {
        "prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49, "cached_tokens": 30,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip
    upstream.always(Kimi(usage=usage))
    response = sdk.respond(reasoning={"effort": "low"})
    assert response.output[0].summary[0].text == REASONING
    assert upstream.chats[0].body["reasoning_effort"] == "low"
    told = response.usage
    assert (told.input_tokens, told.output_tokens, told.total_tokens) == (40, 9, 49)
    assert told.input_tokens_details.cached_tokens == 30
    assert told.output_tokens_details.reasoning_tokens == 5


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_become_the_sdks_own_exceptions(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream, case: str, stream: bool
) -> None:
    step, body, kind, code = REFUSALS[case]
    key = gateway.key(5)
    if step:
        upstream.always(step)
    with pytest.raises(getattr(sdks.openai, kind)) as caught:
        connect(key).respond(stream=stream, **body)
    assert caught.value.code == code
    assert gateway.account(key).credits == 5


def test_an_error_in_mid_stream_is_a_failed_response_and_an_api_error(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(ErrorEvent(4, inner=Kimi(reasoning="")))
    key, events = gateway.key(5), list[Any]()
    with pytest.raises(sdks.openai.APIError) as caught:
        connect(key).events(events.append)
    assert not isinstance(caught.value, sdks.openai.APIStatusError)
    assert (caught.value.code, caught.value.type) == ("service_unavailable", "api_error")
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text
    assert TEXT.startswith(text)
    assert not any(event.type == "response.completed" for event in events)
    assert gateway.account(key).credits == 5


def test_an_answer_costs_a_credit_and_the_ledger_knows_before_the_client(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key, credits = gateway.key(5), list[int]()

    def see(event: Any) -> None:
        if event.type == "response.completed":
            credits.append(gateway.account(key).credits)

    connect(key).events(see)
    assert credits == [4]


def test_a_conversation_goes_on_from_the_answer_before(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key()
    sdk = connect(key)
    upstream.plan(Kimi("Look.", "Think.", tools=CALLS[:1]), Kimi("Sunny."), Kimi("Warm."))
    first = sdk.events(input="Weather?", tools=TOOLS, instructions="Be brief.")[-1].response
    output = {"type": "function_call_output", "call_id": first.output[2].call_id, "output": "20 °C"}
    second = sdk.respond(previous_response_id=first.id, input=[output], tools=TOOLS)
    third = sdk.events(previous_response_id=second.id, input="And tomorrow?")[-1].response
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    asked, called, told, said, again = upstream.chats[2].body["messages"]
    assert (asked["content"], told["content"], again["content"]) == ("Weather?", "20 °C", "And tomorrow?")
    assert (called["content"], called["reasoning_content"]) == ("Look.", "Think.")
    assert (said["content"], said["reasoning_content"]) == ("Sunny.", REASONING)
    with pytest.raises(sdks.openai.BadRequestError) as caught:
        connect().respond(previous_response_id=second.id)
    assert caught.value.param == "previous_response_id"


def test_items_may_be_sent_by_their_ids_as_the_vercel_sdk_does(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.plan(Kimi("Look.", "Think.", tools=CALLS[:1]), Kimi("Sunny."))
    first = sdk.respond(input="Weather?", tools=TOOLS)
    reasoning, message, call = first.output
    sdk.respond(
        input=[
            {"role": "user", "content": "Weather?"},
            {"type": "item_reference", "id": reasoning.id},
            {"type": "item_reference", "id": message.id},
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "20 °C"},
        ]
    )
    called = upstream.chats[1].body["messages"][1]
    assert (called["content"], called["reasoning_content"]) == ("Look.", "Think.")
    assert called["tool_calls"][0]["id"] == vendors(call.call_id)


def test_an_answer_that_was_not_to_be_stored_cannot_be_named(sdk: Sdk) -> None:
    first = sdk.respond(store=False)
    with pytest.raises(sdks.openai.BadRequestError) as caught:
        sdk.respond(previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"
