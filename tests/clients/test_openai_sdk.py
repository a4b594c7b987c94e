"""The official OpenAI SDK, unchanged, against the gateway on a socket."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from clients.sdk import HELLO, REFUSALS, Connect, HeldBack, Sdk
from kimi_gateway.accounts.values import Budget, Limits
from kimi_gateway.pivot.call_ids import vendors
from support import sdks
from support.live import LiveGateway
from upstream import ErrorEvent, Kimi, ScriptedUpstream, Sse, chat_events
from upstream.kimi import REASONING, TEXT


def content(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_models_are_listed_and_retrieved(connect: Connect, base: str) -> None:
    sdk = connect(base=base)
    listed = {model.id: model for model in sdk.models()}
    assert {"kimi", "kimi-k2", "kimi-k2-0905", "kimi-k3", "kimi-k2.6"} <= listed.keys()
    one = sdk.model("kimi-k2")
    assert (one.id, one.object, one.owned_by) == ("kimi-k2", "model", "moonshot-ai")
    assert one == listed["kimi-k2"]


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_a_stream_says_what_the_json_answer_says(
    connect: Connect, upstream: ScriptedUpstream, base: str
) -> None:
    sdk = connect(base=base)
    whole = sdk.chat()
    chunks = sdk.stream()
    assert whole.choices[0].message.content == TEXT == content(chunks)
    assert whole.object == "chat.completion"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {"kimi-k3"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0


def test_the_sdk_accumulates_a_stream_to_the_json_answer(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    whole = sdk.chat()
    summed = sdk.accumulated(stream_options={"include_usage": True})
    assert summed.choices[0].message.content == whole.choices[0].message.content
    assert summed.choices[0].finish_reason == whole.choices[0].finish_reason
    assert summed.usage == whole.usage


def test_chunks_arrive_while_the_upstream_is_still_sending(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    go, seen_before_the_rest = threading.Event(), list[str]()
    upstream.plan(HeldBack(go, inner=Kimi(reasoning="")))

    def see(chunk: Any) -> None:
        if chunk.choices and chunk.choices[0].delta.content and not go.is_set():
            assert not upstream.chats[0].answered.is_set()
            seen_before_the_rest.append(chunk.choices[0].delta.content)
            go.set()

    chunks = sdk.stream(see)
    assert content(chunks) == TEXT
    assert seen_before_the_rest
    assert TEXT.startswith(seen_before_the_rest[0])
    assert seen_before_the_rest[0] != TEXT


TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("get_weather", "get_time")
]
CALLS = [("get_weather", {"city": "Roma", "unit": "°C"}), ("get_time", {"zone": "Europe/Rome"})]


def test_tool_calls_come_whole_and_streamed_with_interleaved_arguments(
    sdk: Sdk, upstream: ScriptedUpstream
) -> None:
    upstream.always(Kimi(text="", tools=CALLS))
    whole = sdk.chat(tools=TOOLS, tool_choice="auto")
    assert whole.choices[0].finish_reason == "tool_calls"
    calls = whole.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
    chunks = sdk.stream(tools=TOOLS)
    pieces = [
        piece for chunk in chunks for choice in chunk.choices for piece in choice.delta.tool_calls or ()
    ]
    order = [piece.index for piece in pieces]
    assert order != sorted(order)
    for index, call in enumerate(calls):
        own = [piece for piece in pieces if piece.index == index]
        assert "".join(piece.function.arguments for piece in own) == call.function.arguments
        assert [vendors(piece.id) for piece in own if piece.id] == [vendors(call.id)]
        assert [piece.function.name for piece in own if piece.function.name] == [call.function.name]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_reasoning_is_there_in_both_modes_and_can_be_replayed(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    message = sdk.chat().choices[0].message
    assert message.reasoning_content == REASONING
    chunks = sdk.stream()
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == REASONING
    history = [*HELLO, message.model_dump(), {"role": "user", "content": "More"}]
    assert sdk.chat(messages=history).choices[0].message.content == TEXT
    assert upstream.chats[-1].body["messages"][1]["reasoning_content"] == REASONING


def test_fields_known_and_unknown_reach_the_upstream(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    schema = {"name": "greeting", "schema": {"type": "object", "properties": {}}, "strict": True}
    sdk.chat(
        model="kimi-k2.6",
        stop=["END", "STOP"],
        response_format={"type": "json_schema", "json_schema": schema},
        logprobs=True,
        top_logprobs=2,
        extra_body={"thinking": {"type": "disabled"}, "prompt_cache_key": "k", "x_unknown": {"deep": [1.5]}},
    )
    sent = upstream.chats[0].body
    assert sent["stop"] == ["END", "STOP"]
    assert sent["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert sent["thinking"] == {"type": "disabled"}
    assert (sent["prompt_cache_key"], sent["x_unknown"]) == ("k", {"deep": [1.5]})


def test_a_partial_message_reaches_the_upstream_as_it_is(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.plan(Kimi(text=" forty-two."))
    begun = {"role": "assistant", "content": "The answer is", "partial": True, "name": "Oracle"}
    assert sdk.chat(messages=[*HELLO, begun]).choices[0].message.content == " forty-two."
    assert upstream.chats[0].body["messages"][-1] == begun


def scored() -> list[dict[str, Any]]:
    """Chunks with logprobs, and with members at each level that nobody here knows."""
    events = chat_events("Hi there", pieces=2)
    tokens = iter(["Hi t", "here"])
    for event in events:
        event["x_top"] = "top"
        choice = event["choices"][0]
        if choice["delta"].get("content"):
            choice["logprobs"] = {"content": [{"token": next(tokens), "logprob": -0.1, "top_logprobs": []}]}
            choice["x_choice"] = 7
            choice["delta"]["x_delta"] = {"a": None}
    return events


def test_logprobs_and_unknown_members_come_back(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.always(Sse(scored()))
    whole = sdk.chat(logprobs=True)
    assert [entry.token for entry in whole.choices[0].logprobs.content] == ["Hi t", "here"]
    assert (whole.x_top, whole.choices[0].x_choice) == ("top", 7)
    assert whole.choices[0].message.x_delta == {"a": None}
    chunks = sdk.stream(logprobs=True)
    entries = [
        entry.token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content
    ]
    assert entries == ["Hi t", "here"]
    assert {chunk.x_top for chunk in chunks} == {"top"}


def test_two_choices_are_two_upstream_calls_under_one_id_for_one_credit(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key(10)
    sdk = connect(key)
    upstream.plan(Kimi("one"), Kimi("two"))
    whole = sdk.chat(n=2)
    assert sorted(choice.message.content for choice in whole.choices) == ["one", "two"]
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage.prompt_tokens % 2 == 0
    upstream.plan(Kimi("one"), Kimi("two"))
    chunks = sdk.stream(n=2, stream_options={"include_usage": True})
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert sorted(texts.values()) == ["one", "two"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage for chunk in chunks if chunk.usage] == [whole.usage]
    assert len(upstream.chats) == 4
    assert gateway.account(key).credits == 8


def test_raw_headers_tell_limits_credits_and_the_request(connect: Connect, gateway: LiveGateway) -> None:
    response = connect(gateway.key(42)).raw(extra_headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-ratelimit-limit"] == "20"
    assert response.headers["x-ratelimit-remaining"] == "19"
    assert int(response.headers["x-ratelimit-reset"]) % 60 == 0
    assert response.headers["x-credits-remaining"] == "41"
    assert response.parse().choices[0].message.content == TEXT
    assert response.parse()._request_id == "mine-1"


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
        connect(key).chat(stream=stream, **body)
    assert caught.value.code == code
    assert caught.value.type == caught.value.body["type"]  # type: ignore[index]
    assert "org-" not in str(caught.value)
    if kind == "RateLimitError":
        assert caught.value.response.headers["retry-after"] == "30"
    assert gateway.account(key).credits == 5


def test_a_wrong_key_is_an_authentication_error(connect: Connect) -> None:
    with pytest.raises(sdks.openai.AuthenticationError) as caught:
        connect("sk-kg-" + "x" * 38).chat()
    assert caught.value.code == "invalid_api_key"


def test_no_credits_are_a_permission_error(connect: Connect, gateway: LiveGateway) -> None:
    with pytest.raises(sdks.openai.PermissionDeniedError) as caught:
        connect(gateway.key(0)).chat()
    assert (caught.value.code, caught.value.type) == ("insufficient_credits", "insufficient_quota")


def test_an_empty_budget_is_a_permission_error(connect: Connect, gateway: LiveGateway) -> None:
    sdk = connect(gateway.limit(gateway.key(), Budget("tokens", "day", 10)))
    for ask in (sdk.chat, sdk.stream, sdk.respond):
        with pytest.raises(sdks.openai.PermissionDeniedError, match="10 tokens a day of this key") as caught:
            ask()
        assert (caught.value.code, caught.value.type) == ("budget_exceeded", "insufficient_quota")


def test_a_full_window_is_a_rate_limit_error_with_a_time_to_wait(
    connect: Connect, gateway: LiveGateway
) -> None:
    sdk = connect(gateway.key(limits=Limits(day=1)))
    sdk.chat()
    with pytest.raises(sdks.openai.RateLimitError) as caught:
        sdk.chat()
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.headers["x-ratelimit-remaining"] == "0"


def test_an_error_in_mid_stream_is_an_api_error_after_the_content(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(ErrorEvent(4, inner=Kimi(reasoning="")))
    key, chunks = gateway.key(5), list[Any]()
    with pytest.raises(sdks.openai.APIError) as caught:
        connect(key).stream(chunks.append)
    assert not isinstance(caught.value, sdks.openai.APIStatusError)
    assert "org-" not in str(caught.value)
    text = content(chunks)
    assert text
    assert TEXT.startswith(text)
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)
    assert gateway.account(key).credits == 5
