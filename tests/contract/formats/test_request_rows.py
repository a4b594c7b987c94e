"""What a chat request becomes on its way upstream, row by row of docs/contract.md.
The upstream refuses what the vendor refuses, so a 200 is half of each proof.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.error_shape import openai_error
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream, Status
from upstream.kimi import WINDOWS, tokens

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
CALL = {"id": "abc:0", "type": "function", "function": {"name": "abc", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "abc:0", "content": "42"}
TOOL = {"type": "function", "function": {"name": "abc", "parameters": {"type": "object"}}}
FIXED = {"temperature": 0.7, "top_p": 0.5, "presence_penalty": 1, "frequency_penalty": -1.5}
K2, K26, K27, K3 = "kimi-k2", "kimi-k2.6", "kimi-k2.7-code", "kimi-k3"


@dataclass(frozen=True)
class Becomes:
    """`sent` are members of the upstream's request, `gone` those that must not be in it."""

    model: str
    body: dict[str, Any]
    sent: dict[str, Any] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


def thinking(kind: str, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": kind, **more}}


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*HELLO, *messages]}


def pictured(image: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": image}]
    return {"messages": [{"role": "user", "content": parts}]}


OFF, ON = thinking("disabled"), thinking("enabled")
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ROWS: dict[str, Becomes] = {
    "kimi runs on K2.6 without thinking": Becomes(
        "kimi", {}, {"model": K26, **OFF}, ("max_completion_tokens",)
    ),
    "kimi-k2 has 1,024 output tokens": Becomes(K2, {}, {"model": K26, "max_completion_tokens": 1024, **OFF}),
    "kimi-k2-0905 is the same upstream": Becomes("kimi-k2-0905", {}, {"model": K26, **OFF}),
    "a limit is passed": Becomes(K2, {"max_tokens": 500}, {"max_completion_tokens": 500}, ("max_tokens",)),
    "8,192 is passed": Becomes(K2, {"max_tokens": 8192}, {"max_completion_tokens": 8192}),
    "8,193 is lowered": Becomes(K2, {"max_tokens": 8193}, {"max_completion_tokens": 8192}),
    "128,000 is lowered": Becomes(K2, {"max_tokens": 128_000}, {"max_completion_tokens": 8192}),
    "the newer name of the limit wins": Becomes(
        K2, {"max_tokens": 7, "max_completion_tokens": 9}, {"max_completion_tokens": 9}
    ),
    "kimi-k2 thinks when asked, up to the cap": Becomes(K2, ON, {"max_completion_tokens": 8192, **ON}),
    "an effort is a wish to think": Becomes(
        K2, {"reasoning_effort": "high"}, {"max_completion_tokens": 8192, **ON}, ("reasoning_effort",)
    ),
    "the effort none is not": Becomes(
        K2, {"reasoning_effort": "none"}, {"max_completion_tokens": 1024, **OFF}
    ),
    "thinking keeps its own limit": Becomes(K2, {"max_tokens": 7, **ON}, {"max_completion_tokens": 7, **ON}),
    "K3 gets no limit of ours": Becomes(K3, {}, {"model": K3}, ("max_tokens", "max_completion_tokens")),
    "K2.6 gets no limit of ours": Becomes(K26, {}, ON, ("max_tokens", "max_completion_tokens")),
    "K2.6 is told not to think": Becomes(K26, OFF, OFF),
    "K2.6 keeps its thoughts if told": Becomes(
        K26, thinking("enabled", keep="all"), thinking("enabled", keep="all")
    ),
    "adaptive is thinking on K2.6": Becomes(K26, thinking("adaptive"), ON),
    "K2.7 thinks whatever it is told": Becomes(K27, OFF, {}, ("thinking",)),
    "K2.7 knows no effort": Becomes(K27, {"reasoning_effort": "low"}, {}, ("reasoning_effort",)),
    "K3 thinks least where it should not": Becomes(K3, OFF, {"reasoning_effort": "low"}, ("thinking",)),
    "an effort outweighs thinking on K3": Becomes(
        K3, {"reasoning_effort": "max", **OFF}, {"reasoning_effort": "max"}, ("thinking",)
    ),
    "plain thinking says nothing to K3": Becomes(K3, ON, {}, ("thinking", "reasoning_effort")),
    "K3 takes [1m] for its own name": Becomes("kimi-k3[1m]", {}, {"model": K3}),
    "1.5 is a temperature": Becomes(K3, {"temperature": 1.5}, {}, ("temperature",)),
    "developer is system": Becomes(
        K3,
        said({"role": "developer", "content": "Be kind."}),
        said({"role": "system", "content": "Be kind."}),
    ),
    "an empty result of a tool is told in a word": Becomes(
        K3, said(CALLED, RESULT | {"content": ""}), said(CALLED, RESULT | {"content": "(empty)"})
    ),
    "an empty assistant message is left out": Becomes(K3, said({"role": "assistant", "content": ""}), said()),
    "K2.6 gets a blank thought for a call": Becomes(
        K26, said(CALLED, RESULT), said(CALLED | {"reasoning_content": " "}, RESULT)
    ),
    "a thought that is there stays": Becomes(
        K26,
        said(CALLED | {"reasoning_content": "So."}, RESULT),
        said(CALLED | {"reasoning_content": "So."}, RESULT),
    ),
    "without thinking no thought is added": Becomes(K2, said(CALLED, RESULT), said(CALLED, RESULT)),
    "a tool without parameters has none": Becomes(
        K3,
        {"tools": [{"type": "function", "function": {"name": "abc"}}]},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "abc", "parameters": {"type": "object", "properties": {}}},
                }
            ]
        },
    ),
    "an image may be a plain string": Becomes(K3, pictured(PNG), pictured(PNG)),
    "an image may be an object": Becomes(K3, pictured({"url": PNG}), pictured({"url": PNG})),
    "a short stop string passes": Becomes(K3, {"stop": "x" * 32}, {"stop": "x" * 32}),
    "a long one does not": Becomes(K3, {"stop": ["x" * 33, "y"]}, {"stop": ["y"]}),
    "the user is a hash upstream": Becomes(
        K3, {"user": "me"}, {"safety_identifier": hashlib.sha256(b"me").hexdigest()}, ("user",)
    ),
    "K3 may be made to call a tool": Becomes(
        K3, {"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": "required"}
    ),
}
EFFORTS = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
BUDGETS = {0: "low", 4096: "low", 4097: "high", 16_384: "high", 16_385: "max"}
ROWS |= (
    {
        f"the effort {name} is {effort} on K3": Becomes(
            K3, {"reasoning_effort": name}, {"reasoning_effort": effort}
        )
        for name, effort in EFFORTS.items()
    }
    | {
        f"a budget of {budget} is {effort} on K3": Becomes(
            K3, thinking("enabled", budget_tokens=budget), {"reasoning_effort": effort}, ("thinking",)
        )
        for budget, effort in BUDGETS.items()
    }
    | {
        f"what {model} fixes is dropped": Becomes(model, FIXED, {}, tuple(FIXED))
        for model in ["kimi", K2, "kimi-k2-0905", *WINDOWS]
    }
)


@pytest.mark.parametrize("row", ROWS)
def test_upstream_gets(gateway: LiveGateway, upstream: ScriptedUpstream, row: str) -> None:
    case = ROWS[row]
    answer = gateway.chat(gateway.key(), model=case.model, **case.body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == case.model
    (chat,) = upstream.chats
    assert {name: chat.body.get(name) for name in case.sent} == case.sent
    assert not chat.body.keys() & set(case.gone)
    assert (chat.body["stream"], chat.body["stream_options"]) == (True, {"include_usage": True})
    fixed = [*FIXED, "thinking", "reasoning_effort"] if case.model == K27 else FIXED
    dropped = [name for name in fixed if name in case.body]
    dropped += [name for name in ("max_tokens",) if case.body.get(name, 0) > 8192]
    assert answer.headers.get("x-param-ignored", "") == ", ".join(dropped)


LIMITS = {
    ("/v1/chat/completions", "max_completion_tokens"): {"messages": HELLO},
    ("/v1/messages", "max_tokens"): {"messages": HELLO},
    ("/v1/responses", "max_output_tokens"): {"input": "Hello"},
}


@pytest.mark.parametrize(("path", "name"), LIMITS)
def test_a_lowered_limit_is_named_as_the_client_calls_it(gateway: LiveGateway, path: str, name: str) -> None:
    told = {}
    with gateway.client(gateway.key()) as client:
        for limit in (8192, 8193):
            answer = client.post(path, json={"model": K2, name: limit, **LIMITS[path, name]})
            told[limit] = answer.headers.get("x-param-ignored")
    assert told == {8192: None, 8193: name}


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "128,001 output tokens on kimi-k2": (
        {"model": K2, "max_tokens": 128_001},
        400,
        "invalid_request",
        "128000",
    ),
    "two tools of one name": (
        {"tools": [TOOL, TOOL]},
        400,
        "invalid_request",
        "function name abc is duplicated",
    ),
    "partial with json_object": (
        said({"role": "assistant", "content": "{", "partial": True})
        | {"response_format": {"type": "json_object"}},
        400,
        "invalid_request",
        "partial",
    ),
    "a model nobody has": ({"model": "gpt-4"}, 404, "model_not_found", "GET /v1/models"),
    "an agent of the web product": ({"model": "0123456789abcdefghij"}, 400, "invalid_request", "Agent ids"),
    "a retired model, with its nearest": (
        {"model": "kimi-k2-thinking"},
        404,
        "model_not_found",
        "kimi-k2.6 is",
    ),
    "an empty model": ({"model": " "}, 400, "invalid_request", "model"),
    "an image on the web": (pictured({"url": "http://a.test/b.png"}), 400, "invalid_request", "image_url"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_before_the_upstream(gateway: LiveGateway, upstream: ScriptedUpstream, row: str) -> None:
    body, status, code, words = REFUSED[row]
    key = gateway.key(5)
    answer = gateway.chat(key, **body)
    error = openai_error(answer.json())
    assert (answer.status_code, error["code"]) == (status, code)
    assert words in error["message"]
    assert not upstream.chats
    assert gateway.account(key).credits == 5


def test_a_limit_as_large_as_the_window_is_lowered_to_what_the_input_leaves(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    assert gateway.chat(gateway.key(), max_tokens=1_048_576).status_code == 200
    assert 1_048_400 < upstream.chats[0].body["max_completion_tokens"] < 1_048_576


def of_tokens(count: int) -> list[dict[str, str]]:
    """Messages that the upstream counts as so many tokens."""
    empty = len(json.dumps([{"role": "user", "content": ""}]))
    messages = [{"role": "user", "content": "x" * (4 * count - empty)}]
    assert tokens(messages) == count
    return messages


@pytest.mark.parametrize(("count", "room"), [(126_976, 1024), (127_990, 10), (127_999, 1)])
def test_the_output_shrinks_to_what_is_left_of_the_window(
    gateway: LiveGateway, upstream: ScriptedUpstream, count: int, room: int
) -> None:
    answer = gateway.chat(gateway.key(), model=K2, messages=of_tokens(count))
    assert answer.status_code == 200, answer.text
    assert upstream.chats[0].body["max_completion_tokens"] == room


@pytest.mark.parametrize("counted", [True, False], ids=["by the upstream", "by estimate while it is down"])
def test_an_input_above_the_window_is_refused_unsent(
    gateway: LiveGateway, upstream: ScriptedUpstream, counted: bool
) -> None:
    if not counted:
        upstream.at("/v1/tokenizers/estimate-token-count", Status(500))
    key, above = gateway.key(5), of_tokens(128_001 if counted else 129_000)
    answer = gateway.chat(key, model=K2, messages=above)
    assert answer.status_code == 400
    assert openai_error(answer.json())["code"] == "context_length_exceeded"
    assert not upstream.chats
    assert gateway.account(key).credits == 5
    wider = gateway.chat(key, model="kimi-k2-0905", messages=above)
    assert wider.status_code == 200


def test_tools_are_part_of_the_input(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    long = {"type": "function", "function": TOOL["function"] | {"description": "x" * 520_000}}
    answer = gateway.chat(gateway.key(), model=K2, tools=[long])
    assert openai_error(answer.json())["code"] == "context_length_exceeded"
    assert not upstream.chats


def test_far_from_the_window_nothing_is_counted_upstream(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    assert gateway.chat(gateway.key(), model=K2, messages=of_tokens(50_000)).status_code == 200
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions"]


def test_an_image_counts_as_an_image_and_not_by_its_bytes(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    large = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n".ljust(600_000)).decode()
    assert gateway.chat(gateway.key(), model=K2, **pictured(large)).status_code == 200
    assert upstream.chats[0].body["max_completion_tokens"] == 1024
