"""Anthropic Messages from a request to the ledger, on every path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_gateway.accounts.values import Limits
from support.error_shape import anthropic_error
from support.inprocess import NOW, Answered, InProcess, Sent, Told, kimi, streamed, told
from support.messages_stream import events_of, folded
from upstream.kimi import TEXT, chat_events, usage_of

Json = dict[str, Any]
HI = {"role": "user", "content": "Hi"}
ASK = {"model": "kimi-k3", "max_tokens": 100, "messages": [HI]}
PATHS = [f"{front}{path}" for front in ("", "/api")
         for path in ("/v1/messages", "/anthropic/v1/messages", "/v1/v1/messages")]  # fmt: skip
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
TOOL = {"name": "get", "input_schema": {"type": "object", "properties": {}}}


def ask(desk: InProcess, key: str | None = None, *more: tuple[str, str], **body: Any) -> Answered:
    return desk.call("POST", "/v1/messages", ASK | body, key or desk.key(), *more)


def message(answer: Answered) -> Json:
    assert answer.status == 200, answer.body
    if answer.headers["content-type"] == "application/json":
        return answer.json  # type: ignore[no-any-return]
    result = folded(answer.body)
    assert result.ended
    return result.message


@pytest.mark.parametrize("path", PATHS)
@STREAMED
def test_each_path_answers_for_one_credit_and_echoes_the_model(
    desk: InProcess, path: str, stream: bool
) -> None:
    key = desk.key(5)
    answer = desk.call("POST", path, ASK | {"model": "kimi-k2-0905", "stream": stream}, key)
    said = message(answer)
    assert said["id"].startswith("msg_")
    assert said["model"] == "kimi-k2-0905"
    assert said["content"] == [{"type": "text", "text": TEXT}]
    assert (said["stop_reason"], said["stop_sequence"]) == ("end_turn", None)
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.headers["x-credits-remaining"] == "4"
    assert answer.headers["x-ratelimit-limit"] == "20"
    assert desk.account(key).credits == 4
    assert desk.client.chats[0].body["model"] == "kimi-k2.6"


@STREAMED
def test_the_ledger_and_the_client_have_the_upstreams_counts(desk: InProcess, stream: bool) -> None:
    events = chat_events(usage=usage_of(30, 7, cached=12), include_usage=True)
    desk.client.answer = lambda sent: streamed(*events)
    key = desk.key()
    assert message(ask(desk, key, stream=stream))["usage"] == {
        "input_tokens": 18,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 12,
        "output_tokens": 7,
    }
    (row,) = desk.run(desk.store.usage(0, desk.account(key).id))
    assert (row.input, row.output, row.requests) == (30, 7, 1)


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_the_key_comes_in_either_header(desk: InProcess, header: str) -> None:
    key = desk.key()
    sent = f"Bearer {key}" if header == "authorization" else key
    answer = desk.call("POST", "/v1/messages", ASK, None, (header, sent), ("anthropic-version", "2023-06-01"))
    assert answer.status == 200


def test_without_a_key_nothing_is_asked(desk: InProcess) -> None:
    answer = desk.call("POST", "/v1/messages", ASK)
    assert (answer.status, anthropic_error(answer.json)["type"]) == (401, "authentication_error")
    assert not desk.client.sent


def refused(answer: Answered, status: int, kind: str) -> Json:
    assert (answer.status, anthropic_error(answer.json)["type"]) == (status, kind)
    assert answer.json["request_id"] == answer.headers["request-id"]
    found: Json = answer.json["error"]
    return found


def test_refusals_have_anthropics_shape_and_cost_nothing(desk: InProcess) -> None:
    key = desk.key(5, Limits(minute=1))
    refused(ask(desk, key, model="gpt-4"), 404, "not_found_error")
    refused(ask(desk, key, model="abcdefghij0123456789"), 400, "invalid_request_error")
    named = refused(ask(desk, key, max_tokens=0), 400, "invalid_request_error")
    assert named["message"] == "max_tokens: must be at least 1"
    refused(desk.call("POST", "/v1/messages", b"{", key), 400, "invalid_request_error")
    refused(desk.call("POST", "/v1/messages", [], key), 400, "invalid_request_error")
    refused(desk.call("GET", "/anthropic/v1/messages", b"", key), 405, "invalid_request_error")
    assert not desk.client.chats
    assert ask(desk, key).status == 200
    limited = ask(desk, key)
    refused(limited, 429, "rate_limit_error")
    assert limited.headers["retry-after"] == str(60 - NOW % 60)
    refused(ask(desk, desk.key(0)), 403, "permission_error")
    assert desk.account(key).credits == 4


def chunk(**delta: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@STREAMED
def test_a_stop_sequence_across_chunks_ends_the_answer_and_is_named(desk: InProcess, stream: bool) -> None:
    events = [chunk(content="one EN"), chunk(content="D two"), chunk(content=" three"), *chat_events()[-1:]]
    desk.client.answer = lambda sent: streamed(*events)
    said = message(ask(desk, stream=stream, stop_sequences=["STOP", "END"]))
    assert said["content"] == [{"type": "text", "text": "one "}]
    assert (said["stop_reason"], said["stop_sequence"]) == ("stop_sequence", "END")
    assert "stop" not in desk.client.chats[0].body


@STREAMED
def test_half_a_stop_sequence_is_text(desk: InProcess, stream: bool) -> None:
    desk.client.answer = lambda sent: streamed(chunk(content="one EN"), *chat_events()[-1:])
    said = message(ask(desk, stream=stream, stop_sequences=["END"]))
    assert said["content"] == [{"type": "text", "text": "one EN"}]
    assert (said["stop_reason"], said["stop_sequence"]) == ("end_turn", None)


SENT: dict[str, tuple[Json, Json, tuple[str, ...]]] = {
    "sampling that the vendor fixes": ({"temperature": 0.7, "top_p": 0.5}, {}, ("temperature", "top_p")),
    "the suffix of Claude Code": ({"model": "kimi-k3[1m]"}, {"model": "kimi-k3"}, ()),
    "8,193 on kimi-k2": ({"model": "kimi-k2", "max_tokens": 8193}, {"max_completion_tokens": 8192}, ()),
    "adaptive thinking on K3": ({"thinking": {"type": "adaptive"}}, {}, ("thinking", "reasoning_effort")),
    "adaptive thinking on K2.6": (
        {"model": "kimi-k2.6", "thinking": {"type": "adaptive"}}, {"thinking": {"type": "enabled"}}, (),
    ),
    "thinking wakes kimi-k2": (
        {"model": "kimi-k2", "thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"thinking": {"type": "enabled"}}, (),
    ),
    "no thinking on K3": ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "low"}, ("thinking",)),
    "a budget on K3": (
        {"thinking": {"type": "enabled", "budget_tokens": 9000}}, {"reasoning_effort": "high"}, ("thinking",),
    ),
    "Claude Code's effort": ({"output_config": {"effort": "medium"}}, {"reasoning_effort": "high"}, ()),
    "an hour's cache on K3": (
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"prompt_cache_options": {"mode": "implicit", "ttl": "1h"}}, ("cache_control",),
    ),
    "an hour's cache on K2.6": (
        {"model": "kimi-k2.6", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, {},
        ("prompt_cache_options", "cache_control"),
    ),
    "a begun answer": (
        {"messages": [HI, {"role": "assistant", "content": "It is"}]},
        {"messages": [HI, {"role": "assistant", "content": "It is", "partial": True}]}, (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
def test_what_the_upstream_gets(desk: InProcess, name: str) -> None:
    body, sent, gone = SENT[name]
    assert ask(desk, **body).status == 200
    seen = desk.client.chats[0].body
    assert seen.items() >= sent.items()
    assert not set(gone) & seen.keys()


def test_what_is_left_out_is_reported_in_a_header(desk: InProcess) -> None:
    answer = ask(desk, tools=[TOOL], service_tier="auto", context_management={}, temperature=0.7)
    told_of = set(answer.headers["x-param-ignored"].split(", "))
    assert told_of == {"service_tier", "context_management", "temperature"}


def test_an_input_above_the_window_is_refused_before_the_upstream(desk: InProcess) -> None:
    desk.client.answer = lambda sent: told({"data": {"total_tokens": 128_001}})
    key = desk.key(5)
    long = ask(desk, key, model="kimi-k2", messages=[{"role": "user", "content": "word " * 200_000}])
    assert "tokens" in refused(long, 400, "invalid_request_error")["message"]
    assert not desk.client.chats
    assert desk.account(key).credits == 5


@STREAMED
def test_half_a_stop_sequence_before_a_call_stays_before_it(desk: InProcess, stream: bool) -> None:
    def answer(sent: Sent) -> Told:
        return (
            streamed(*chat_events("I look. EN", None, [("get", {})])) if "chat" in sent.path else kimi(sent)
        )

    desk.client.answer = answer
    said = message(ask(desk, stream=stream, stop_sequences=["END"], tools=[TOOL]))
    assert [block["type"] for block in said["content"]] == ["text", "tool_use"]
    assert said["content"][0]["text"] == "I look. EN"


def looping(sent: Sent) -> Told:
    """Calls two tools in each of three turns."""
    if sent.path != "/v1/chat/completions":
        return kimi(sent)
    turn = sum(said["role"] == "assistant" for said in sent.body["messages"])
    if turn < 3:
        return streamed(*chat_events("", f"Thought {turn}.", [("get", {"n": turn}), ("get", {"m": turn})]))
    return streamed(*chat_events("Done.", "Enough."))


@STREAMED
def test_a_tool_loop_keeps_its_reasoning_and_the_vendors_ids(desk: InProcess, stream: bool) -> None:
    desk.client.answer = looping
    history: list[Json] = [HI]
    while True:
        said = message(ask(desk, messages=history, tools=[TOOL], stream=stream, model="kimi-k2.6"))
        history.append({"role": "assistant", "content": said["content"]})
        calls = [block for block in said["content"] if block["type"] == "tool_use"]
        if not calls:
            break
        assert said["stop_reason"] == "tool_use"
        assert said["content"][0]["type"] == "thinking"
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "ok"} for call in calls]
        history.append({"role": "user", "content": results})
    assert said["content"][-1] == {"type": "text", "text": "Done."}
    last = desk.client.chats[-1].body["messages"]
    reasoning = [one["reasoning_content"] for one in last if one["role"] == "assistant"]
    assert reasoning == ["Thought 0.", "Thought 1.", "Thought 2."]
    answered = [one["tool_call_id"] for one in last if one["role"] == "tool"]
    assert len(set(answered)) == len(answered)
    assert {id.partition("_")[0] for id in answered} == {"get:0", "get:1"}


def test_the_events_say_which_model_was_asked_for_from_the_first(desk: InProcess) -> None:
    first = events_of(ask(desk, stream=True, model="kimi-k3[1m]").body)[0]
    assert first["message"]["model"] == "kimi-k3[1m]"
    assert first["message"]["usage"]["input_tokens"] > 0


def test_a_body_with_a_name_twice_is_refused(desk: InProcess) -> None:
    raw = json.dumps(ASK).encode()[:-1] + b',"max_tokens":5}'
    refused(desk.call("POST", "/v1/messages", raw, desk.key()), 400, "invalid_request_error")
