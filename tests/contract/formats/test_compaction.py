"""`POST /v1/responses/compact`: what the model sees, what comes back, what it costs, and that it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support import sdks
from support.error_shape import openai_error
from support.inprocess import InProcess, Sent, Told, streamed
from upstream import chat_events

Json = dict[str, Any]
PATH = "/v1/responses/compact"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
HISTORY: list[Json] = [
    {"role": "user", "content": "Find the cat"},
    CALL,
    {"type": "function_call_output", "call_id": "c1", "output": "under the sofa"},
    {"role": "assistant", "content": "It is under the sofa."},
    {"role": "user", "content": [{"type": "input_text", "text": "And the dog?"}]},
]


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        desk.client.answer = summary
        yield desk


def summary(sent: Sent) -> Told:
    return streamed(*chat_events("The cat is under the sofa.", "I sum up"))


def ask(desk: InProcess, key: str, **body: Any) -> Json:
    answer = desk.call("POST", PATH, {"model": "kimi-k3", **body}, key)
    assert answer.status == 200, answer.body
    found = dict(answer.json)
    only = {**found, "output": found["output"][-1:]}  # the SDK's type has no messages of the user
    sdks.openai.types.responses.CompactedResponse.model_validate(only)
    return found


def test_the_users_words_stay_and_a_summary_stands_for_the_rest(desk: InProcess) -> None:
    key = desk.key(5)
    found = ask(desk, key, input=HISTORY, tools=[TOOL], stream=True, instructions="Be brief")
    assert (found["object"], found["id"][:5]) == ("response.compaction", "resp_")
    *users, last = found["output"]
    assert [(each["role"], each["content"]) for each in users] == [
        ("user", [{"type": "input_text", "text": "Find the cat"}]),
        ("user", [{"type": "input_text", "text": "And the dog?"}]),
    ]
    assert last["type"] == "compaction"
    assert len({each["id"] for each in found["output"]}) == 3
    assert found["usage"]["total_tokens"] > 0
    sent = desk.client.sent[-1].body
    assert sent["tool_choice"] == "none"
    assert sent["tools"][0]["function"]["name"] == "look"
    assert sent["messages"][-1]["role"] == "user"
    assert "summary" in sent["messages"][-1]["content"]
    assert "under the sofa" in json.dumps(sent["messages"])
    assert desk.account(key).credits == 4


def test_the_next_request_goes_on_from_it(desk: InProcess) -> None:
    key = desk.key(5)
    output = ask(desk, key, input=HISTORY)["output"]
    more = [*output, {"role": "user", "content": "Where is it?"}]
    assert desk.call("POST", "/v1/responses", {"model": "kimi-k3", "input": more}, key).status == 200
    messages = desk.client.sent[-1].body["messages"]
    assert [each["role"] for each in messages] == ["user", "user", "system", "user"]
    assert messages[2]["content"].endswith("\n\nThe cat is under the sofa.")
    again = ask(desk, key, input=more)  # a compaction of a compaction
    assert [each["type"] for each in again["output"]] == ["message"] * 3 + ["compaction"]


def test_an_earlier_answer_is_compacted_by_its_id(desk: InProcess) -> None:
    key = desk.key(5)
    first = desk.call("POST", "/v1/responses", {"model": "kimi-k3", "input": "Find the cat"}, key).json
    found = ask(desk, key, previous_response_id=first["id"])
    assert [each["type"] for each in found["output"]] == ["message", "compaction"]
    assert found["output"][0]["content"][0]["text"] == "Find the cat"
    assert desk.call("GET", f"/v1/responses/{found['id']}", b"", key).status == 404  # it is not kept


@pytest.mark.parametrize(
    "answer",
    [chat_events("The cat is", "I sum up", finish="length"), chat_events("", "")],
    ids=["cut", "empty"],
)
def test_without_a_whole_summary_nothing_is_lost(desk: InProcess, answer: list[Json]) -> None:
    desk.client.answer = lambda sent: streamed(*answer)
    found = desk.call("POST", PATH, {"model": "kimi-k3", "input": HISTORY}, desk.key(5)).json
    kinds = ["message", "function_call", "function_call_output", "message", "message"]
    assert [each["type"] for each in found["output"]] == kinds
    assert "under the sofa" in json.dumps(found["output"][2])
    assert {each["call_id"] for each in found["output"][1:3]} == {"c1"}
    asked = desk.client.sent[-1].body
    assert asked["max_completion_tokens"] == 32_768


WRONG: list[tuple[Json, str]] = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"type": "nothing"}]}, "input.0.type"),
    ({"input": [{"type": "compaction", "encrypted_content": "gAAAA"}]}, "input.0.encrypted_content"),
    ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
]


@pytest.mark.parametrize(("body", "place"), WRONG)
def test_what_is_wrong_is_named_and_costs_nothing(desk: InProcess, body: Json, place: str) -> None:
    key = desk.key(5)
    answer = desk.call("POST", PATH, {"model": "kimi-k3", **body}, key)
    assert (answer.status, openai_error(answer.json)["param"]) == (400, place)
    assert desk.account(key).credits == 5
    assert desk.client.sent == []


def test_a_failure_costs_nothing(desk: InProcess) -> None:
    desk.client.answer = lambda sent: streamed({"error": {"message": "overloaded", "type": "server_error"}})
    key = desk.key(5)
    assert desk.call("POST", PATH, {"model": "kimi-k3", "input": HISTORY}, key).status == 503
    assert desk.account(key).credits == 5
