"""What one request leaves behind for the next: seen by its account in every format, by no other in any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.inprocess import InProcess, Sent, Told, kimi, streamed, told
from upstream.kimi import chat_events

Json = dict[str, Any]
MODEL = "kimi-k2.6"
NAME = "look up ☂ " + "x" * 140  # which the vendor refuses
REASONING = "I should look it up."
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
FUNCTION: Json = {"name": NAME, "parameters": {"type": "object"}}
TOOLS: dict[str, Json] = {
    "chat": {"tools": [{"type": "function", "function": FUNCTION}], "thinking": {"type": "enabled"}},
    "messages": {
        "tools": [{"name": NAME, "input_schema": FUNCTION["parameters"]}],
        "thinking": {"type": "enabled"},
        "max_tokens": 100,
    },
    "responses": {"tools": [{"type": "function", **FUNCTION}]},
}
ASKED: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "Q"}]},
    "messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}]},
    "responses": {"input": "Q"},
}
# The same call and its result, as clients write them that drop the reasoning.
WENT_ON: dict[str, Json] = {
    "chat": {
        "messages": [
            {"role": "user", "content": "Q"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "f:0", "type": "function", "function": {"name": NAME, "arguments": '{"n":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "f:0", "content": "42"},
        ]
    },
    "messages": {
        "messages": [
            {"role": "user", "content": "Q"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "kimi_f-3a0", "name": NAME, "input": {"n": 1}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "kimi_f-3a0", "content": "42"}],
            },
        ]
    },
    "responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
            {"type": "function_call", "call_id": "f:0", "name": NAME, "arguments": '{"n": 1.0}'},
            {"type": "function_call_output", "call_id": "f:0", "output": "42"},
        ]
    },
}


def calling(sent: Sent) -> Told:
    if sent.path != "/v1/chat/completions":
        return kimi(sent)
    if sent.body["messages"][-1]["role"] == "tool":
        return streamed(*chat_events("Done."))
    events = chat_events("", REASONING, [(sent.body["tools"][0]["function"]["name"], {"n": 1})])
    return streamed(*json.loads(json.dumps(events).replace(f"{named(sent)}:0", "f:0")))


def named(sent: Sent) -> str:
    return str(sent.body["tools"][0]["function"]["name"])


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        desk.client.answer = calling
        yield desk


def ask(desk: InProcess, key: str, format: str, body: Json) -> Json:
    answer = desk.call("POST", PATHS[format], {"model": MODEL} | TOOLS[format] | body, key)
    assert answer.status == 200, answer.body
    return answer.json  # type: ignore[no-any-return]


def sent_reasoning(desk: InProcess) -> list[str]:
    """What the upstream's last request had under the assistant's messages."""
    messages = desk.client.chats[-1].body["messages"]
    return [one["reasoning_content"] for one in messages if one["role"] == "assistant"]


@pytest.mark.parametrize("second", PATHS)
@pytest.mark.parametrize("first", PATHS)
def test_reasoning_is_found_in_another_format_and_not_by_another_account(
    desk: InProcess, first: str, second: str
) -> None:
    key, other = desk.key(), desk.key()
    ask(desk, key, first, ASKED[first])
    ask(desk, key, second, WENT_ON[second])
    assert sent_reasoning(desk) == [REASONING]
    ask(desk, other, second, WENT_ON[second])
    assert sent_reasoning(desk) == [" "]


def test_an_answer_is_named_by_its_own_account_only(desk: InProcess) -> None:
    key, other = desk.key(), desk.key()
    answer = ask(desk, key, "responses", {"input": "a secret question"})
    output = {"type": "function_call_output", "call_id": "f:0", "output": "42"}
    reasoning, call = ({"type": "item_reference", "id": item["id"]} for item in answer["output"])
    bodies: tuple[Json, ...] = (
        {"previous_response_id": answer["id"], "input": [output]},
        {"input": [{"role": "user", "content": "Q"}, reasoning, call, output]},
    )
    for body in bodies:
        ask(desk, key, "responses", body)
        before = len(desk.client.chats)
        refused = desk.call("POST", PATHS["responses"], {"model": MODEL} | body, other)
        assert refused.status == 400
        assert b"secret" not in refused.body
        assert len(desk.client.chats) == before


def test_what_is_only_named_counts_against_the_window(desk: InProcess) -> None:
    """The vendor refuses input and output beyond it, and so does the gateway, before it asks."""
    tokens = 7

    def answer(sent: Sent) -> Told:
        if sent.path.endswith("estimate-token-count"):
            return told({"data": {"total_tokens": tokens}})
        return streamed(*chat_events("Done.")) if sent.path.endswith("completions") else kimi(sent)

    desk.client.answer = answer
    key = desk.key(10)
    long = {"model": "kimi-k2", "input": "word " * 90_000, "max_output_tokens": 100}
    first = desk.call("POST", PATHS["responses"], long, key)
    assert first.status == 200
    tokens = 127_990
    more = {"model": "kimi-k2", "input": "And?", "previous_response_id": first.json["id"]}
    assert desk.call("POST", PATHS["responses"], more, key).status == 200
    assert desk.client.chats[-1].body["max_completion_tokens"] == 10
    tokens = 128_001
    refused = desk.call("POST", PATHS["responses"], more, key)
    assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")
    assert len(desk.client.chats) == 2


HOUR = 3_600


@pytest.mark.parametrize("by", ["previous_response_id", "items"])
@pytest.mark.parametrize(
    ("visits", "known"),
    [
        ([(13, "responses"), (30, "responses"), (48, "responses")], [200, 200, 200]),
        ([(11, "responses"), (25, "responses")], [200, 400]),
        ([(13, "responses/input_tokens"), (25, "responses")], [200, 400]),
        ([(25, "responses")], [400]),
    ],
    ids=["in the second half", "in the first half", "only counted", "never"],
)
def test_a_named_answer_is_renewed_in_the_second_half_of_its_life(
    desk: InProcess, by: str, visits: list[tuple[int, str]], known: list[int]
) -> None:
    key, began = desk.key(), desk.now
    answer = ask(desk, key, "responses", {"input": "Q"})
    output = {"type": "function_call_output", "call_id": "f:0", "output": "42"}
    body: Json = {"previous_response_id": answer["id"], "input": [output]}
    if by == "items":
        calls = [{"type": "item_reference", "id": item["id"]} for item in answer["output"]]
        body = {"input": [{"role": "user", "content": "Q"}, *calls, output]}
    seen = []
    for hours, path in visits:
        desk.now = began + hours * HOUR
        seen.append(desk.call("POST", f"/v1/{path}", {"model": MODEL} | body, key).status)
    assert seen == known
