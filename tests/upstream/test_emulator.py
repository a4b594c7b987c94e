"""The emulator against its own promises: where it lied unasked, every test built on it would."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.tls import NO_TLS
from upstream import (
    DONE,
    BigEvent,
    Cut,
    ErrorEvent,
    HtmlError,
    Kimi,
    Malformed,
    NoDone,
    Pieces,
    ScriptedUpstream,
    Sse,
    Status,
    Step,
    ToolLoop,
    chat_events,
    completion,
    rate_limited,
)

USER = {"role": "user", "content": "hi"}
ORDER = {"model": "kimi-k3", "messages": [USER]}
CALL = {"id": "f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKS = {"role": "assistant", "content": "", "reasoning_content": "so", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "f:0", "content": "1"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [("get_weather", {"city": "Rome"}), ("search", '{"q":"あ"}')]


def post(up: ScriptedUpstream, path: str = "/chat/completions", **fields: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=NO_TLS) as client:
        return client.post(up.url + path, json=ORDER | fields, headers={"authorization": "Bearer sk-one"})


def get(up: ScriptedUpstream, path: str) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=NO_TLS) as client:
        return client.get(up.url + path)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_stream_adds_up_to_the_answer_in_one_piece() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = completion("你好!", "hm", TOOLS, usage=usage)["choices"][0]
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    for event in chat_events("你好!", "hm", TOOLS, usage=usage, pieces=3)[:-1]:
        delta = event["choices"][0]["delta"]
        for name in ("content", "reasoning_content"):
            message[name] += delta.get(name, "")
        for fragment in delta.get("tool_calls", []):
            if "id" in fragment:
                message["tool_calls"].append({k: v for k, v in fragment.items() if k != "index"})
            else:
                function = message["tool_calls"][fragment["index"]]["function"]
                function["arguments"] += fragment["function"]["arguments"]
    assert message == whole["message"]
    last = chat_events(tools=TOOLS, usage=usage)[-1]
    assert last["choices"][0]["finish_reason"] == whole["finish_reason"] == "tool_calls"
    assert last["usage"] == last["choices"][0]["usage"] == usage


def test_fragments_of_two_calls_interleave() -> None:
    chunks = chat_events(tools=TOOLS, pieces=2)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [d["tool_calls"][0]["index"] for d in deltas if "tool_calls" in d] == [0, 1, 0, 1, 0, 1]


def test_the_usage_chunk_comes_where_it_is_asked_for(up: ScriptedUpstream) -> None:
    plain = events(post(up, stream=True).text)
    asked = events(post(up, stream=True, stream_options={"include_usage": True}).text)
    assert plain[-1] == asked[-1] == "[DONE]"
    assert plain[-2]["choices"][0]["finish_reason"] == "stop"
    assert (asked[-2]["choices"], asked[-2]["usage"]) == ([], plain[-2]["usage"])


def test_a_model_that_thinks_sends_reasoning_and_one_told_not_to_does_not(up: ScriptedUpstream) -> None:
    assert "reasoning_content" in post(up).json()["choices"][0]["message"]
    quiet = post(up, model="kimi-k2.6", thinking={"type": "disabled"}).json()
    assert "reasoning_content" not in quiet["choices"][0]["message"]


STYLE = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"model": "gpt-4"}, 404, "Not found the model gpt-4"),
    ({"messages": []}, 400, "must not be empty"),
    ({"temperature": 0.7}, 400, "invalid temperature: only 1 is allowed for this model"),
    ({"model": "kimi-k2.6", "thinking": {"type": "disabled"}, "temperature": 1}, 400, "only 0.6 is allowed"),
    ({"top_p": 1}, 400, "invalid top_p: only 0.95"),
    ({"n": 2}, 400, "invalid n: only 1 is allowed for this model"),
    ({"presence_penalty": 0.1}, 400, "invalid presence_penalty"),
    ({"model": "kimi-k2.7-code", "thinking": {"type": "disabled"}}, 400, "only type=enabled"),
    ({"stop": ["a"] * 6}, 400, "stop"),
    ({"stop": "あ" * 11}, 400, "stop"),
    ({"max_tokens": 0}, 400, "positive integer"),
    ({"max_completion_tokens": 1_048_576}, 400, "exceeded model token limit : 1048576"),
    ({"top_logprobs": 2}, 400, "logprobs"),
    ({"tools": [TOOL, TOOL]}, 400, "function name f is duplicated"),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        400,
        'type is required and must be "object"',
    ),
    ({"tools": [TOOL], "response_format": STYLE}, 400, "response_format.json_schema.schema"),
    ({"tools": [TOOL | {"type": "builtin_function"}] * 129}, 400, "128"),
    ({"tool_choice": "required"}, 400, "needs tools"),
    ({"tools": [{"type": "function", "function": {"name": "1f"}}]}, 400, "invalid"),
    ({"model": "kimi-k2.6", "tool_choice": "required"}, 400, "tool_choice 'required'"),
    ({"tool_choice": {"type": "function"}}, 400, "tool_choice 'specified' is incompatible with thinking"),
    ({"messages": [{"role": "developer", "content": "x"}]}, 400, "unsupported role developer"),
    (
        {"messages": [USER, {"role": "assistant", "content": ""}, USER]},
        400,
        "position 1 with role 'assistant'",
    ),
    ({"messages": [{"role": "system", "tools": [TOOL], "content": "x"}]}, 400, "cannot be used with content"),
    ({"messages": [USER, ASKS, USER]}, 400, "tool_call_id f:0 not found"),
    ({"messages": [USER, ASKS]}, 400, "tool_call_id f:0 not found"),
    ({"messages": [USER, ASKS, RESULT, RESULT]}, 400, "tool_call_id f:0 not found"),
    ({"messages": [USER, {**RESULT, "tool_call_id": "g"}]}, 400, "tool_call_id g not found"),
    (
        {"model": "kimi-k2.6", "messages": [USER, {**ASKS, "reasoning_content": ""}, RESULT]},
        400,
        "reasoning_content is missing in assistant tool call message at index 1",
    ),
    ({"messages": [{"role": "assistant", "content": "x", "partial": True}, USER]}, 400, "partial"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a/b.png"}]}]},
        400,
        "unsupported image url: https://a/b.png",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, 400, "content type document"),
]


@pytest.mark.parametrize(("fields", "status", "text"), REFUSED)
def test_what_the_vendor_refuses_is_refused_before_any_script(
    up: ScriptedUpstream, fields: dict[str, Any], status: int, text: str
) -> None:
    up.plan(Status(500))
    refused = post(up, **fields)
    assert (refused.status_code, text in refused.json()["error"]["message"]) == (status, True), refused.text
    assert post(up).status_code == 500


def test_what_the_vendor_takes_is_taken(up: ScriptedUpstream) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, picture]},
        ASKS,
        RESULT,
        {"role": "system", "tools": [TOOL]},
        USER,
        {"role": "assistant", "content": "Well,", "partial": True},
    ]
    taken = post(up, messages=messages, tools=[TOOL], temperature=1, top_p=0.95, n=1, stop=["x"], seed=7)
    assert taken.status_code == 200, taken.text


def test_a_lenient_upstream_refuses_nothing() -> None:
    with ScriptedUpstream(strict=False) as up:
        assert post(up, model="gpt-4", temperature=2, messages=[]).status_code == 200


def test_only_known_tokens_are_let_in() -> None:
    with ScriptedUpstream(tokens={"sk-two"}) as up:
        refused = post(up)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "incorrect_api_key_error")
        up.tokens = {"sk-one"}
        assert post(up).status_code == 200
        assert [request.token for request in up.chats] == ["sk-one", "sk-one"]


def test_the_other_endpoints_answer_in_the_vendors_shapes(up: ScriptedUpstream) -> None:
    ids = [row["id"] for row in get(up, "/models").json()["data"]]
    assert ids == up.models
    assert get(up, "/users/me/balance").json()["data"]["available_balance"] == 49.58
    assert post(up, "/tokenizers/estimate-token-count").json()["data"]["total_tokens"] > 0
    assert get(up, "/nowhere").json()["error"]["type"] == "resource_not_found_error"
    up.at("/v1/models", HtmlError(504))
    assert get(up, "/models").headers["content-type"] == "text/html"


def test_a_plan_is_used_up_before_what_holds_always(up: ScriptedUpstream) -> None:
    up.plan(rate_limited("rate_limit_reached", retry_after=3), Kimi("planned"))
    up.always(Kimi("always"))
    limited = post(up)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
    assert limited.json()["error"]["type"] == "rate_limit_reached_error"
    texts = [post(up).json()["choices"][0]["message"]["content"] for _ in range(3)]
    assert texts == ["planned", "always", "always"]


@pytest.mark.parametrize(
    ("step", "sent"),
    [
        (Sse([{"n": 1}, b": ping\n\n"]), b'data: {"n":1}\n\n: ping\n\n' + DONE),
        (NoDone(Sse([{"n": 1}])), b'data: {"n":1}\n\n'),
        (Pieces(1, Sse([{"n": "あ"}])), 'data: {"n":"あ"}\n\ndata: [DONE]\n\n'.encode()),
        (ErrorEvent(1, {"error": {}}, Sse([{"n": 1}, {"n": 2}])), b'data: {"n":1}\n\ndata: {"error":{}}\n\n'),
    ],
)
def test_a_step_sends_what_it_says(up: ScriptedUpstream, step: Step, sent: bytes) -> None:
    up.plan(step)
    assert post(up).content == sent


def test_a_malformed_or_big_event_stands_among_good_ones(up: ScriptedUpstream) -> None:
    up.plan(Malformed(1, Sse([{"n": 1}, {"n": 2}, {"n": 3}])), BigEvent(10_000, 1, Sse([{"n": 1}, {"n": 2}])))
    first, broken, *rest = post(up).text.split("\n\n")
    assert (first, rest[0]) == ('data: {"n":1}', 'data: {"n":3}')
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(broken.removeprefix("data: "))
    assert len(events(post(up).text)[1]["choices"][0]["delta"]["content"]) == 10_000


@pytest.mark.parametrize("step", [Sse([b"x" * 10]), Status(200, b"x" * 10)])
def test_a_cut_sends_so_many_bytes_of_the_body_and_no_end(up: ScriptedUpstream, step: Step) -> None:
    up.plan(Cut(7, step))
    got: list[bytes] = []
    with (
        httpx.Client(trust_env=False, verify=NO_TLS) as client,
        client.stream("POST", up.url + "/chat/completions", json=ORDER) as cut,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        got.extend(cut.iter_raw())
    assert b"".join(got) == b"x" * 7
    assert not up.requests[0].closed_early.is_set()


def test_every_request_is_remembered_with_its_connection(up: ScriptedUpstream) -> None:
    with httpx.Client(trust_env=False, verify=NO_TLS) as client:
        for text in ("one", "two"):
            client.post(up.url + "/chat/completions?beta=true", json={"text": text})
    assert [(r.method, r.path, r.body["text"], r.connection) for r in up.requests] == [
        ("POST", "/v1/chat/completions", "one", 1),
        ("POST", "/v1/chat/completions", "two", 1),
    ]
    up.until(lambda: up.open_connections == 0)


def test_a_tool_loop_calls_until_its_results_are_there_and_leaves_other_requests_alone(
    up: ScriptedUpstream,
) -> None:
    up.always(ToolLoop([("f", {"a": 1}), ("f", {"a": 2})], text="Done.", beside="Title"))
    messages: list[Any] = [USER]
    for turn in range(2):
        message = post(up, messages=messages, tools=[TOOL]).json()["choices"][0]["message"]
        [call] = message["tool_calls"]
        assert (call["id"], json.loads(call["function"]["arguments"])) == (f"f:{turn}", {"a": turn + 1})
        assert post(up, messages=messages).json()["choices"][0]["message"]["content"] == "Title"
        messages += [message, RESULT | {"tool_call_id": call["id"]}]
    assert post(up, messages=messages, tools=[TOOL]).json()["choices"][0]["message"]["content"] == "Done."
