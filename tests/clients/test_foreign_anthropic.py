"""The official Anthropic SDK of Node, newest and old, unchanged, on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from clients.drivers import Driver, Outcome
from kimi_gateway.accounts.values import Budget
from kimi_gateway.dialects.messages import ids
from kimi_gateway.flow.search.tools import SEARCH
from kimi_gateway.pivot.call_ids import vendors
from support.live import HELLO, LiveGateway
from upstream import ErrorEvent, HtmlError, Kimi, ScriptedUpstream, Status, error, rate_limited
from upstream.kimi import REASONING, TEXT

BODY: dict[str, Any] = {"model": "kimi-k3", "max_tokens": 1000, "messages": HELLO}
TOOLS = [
    {"name": name, "input_schema": {"type": "object", "properties": {}}}
    for name in ("get_weather", "get_time")
]
CALLS = [("get_weather", {"city": "Roma", "unit": "°C"}), ("get_time", {"zone": "Europe/Rome"})]
SDKS = {
    "node": ("node", "@anthropic-ai/sdk"),
    "old-node": ("node", "anthropic-old"),
}


NEW = ("@anthropic-ai/sdk",)


@pytest.fixture(scope="module", params=SDKS.values(), ids=SDKS)
def sdk(request: pytest.FixtureRequest, gateway: LiveGateway) -> Iterator[Driver]:
    with Driver(*request.param, gateway.url) as driver:
        yield driver


def done(outcome: Outcome) -> Any:
    assert not outcome.classes, outcome
    return outcome.value


def said(answer: dict[str, Any], sdk: Driver) -> dict[str, Any]:
    """All but the ids of one answer. Old accumulators keep the input that was estimated at the start."""
    names = ("role", "model", "content", "stop_reason", "stop_sequence")
    usage = answer["usage"] if sdk.name in NEW else {"output_tokens": answer["usage"]["output_tokens"]}
    for block in answer["content"]:
        if block["type"] == "tool_use":
            block["id"] = vendors(ids.upstream(block["id"]))
    return {name: answer[name] for name in names} | {"usage": usage}


def test_a_web_search_is_one_answer_with_sources(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    looks, found = Kimi("I look. ", "", tools=[(SEARCH, {"query": "news"})]), Kimi("It is new [1].", "")
    upstream.plan(*[looks, found] * 2)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    key, body = gateway.key(5), BODY | {"tools": tools}
    whole = done(sdk("whole", key=key, body=body))
    kinds = ["text", "server_tool_use", "web_search_tool_result", "text"]
    assert [block["type"] for block in whole["content"]] == kinds
    assert whole["content"][2]["content"][0]["url"] == "https://example.com/1"
    assert whole["content"][3]["citations"][0]["url"] == "https://example.com/1"
    assert whole["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}
    summed = done(sdk("accumulated", key=key, body=body))
    assert [block["type"] for block in summed["content"]] == kinds
    assert [block.get("text") for block in summed["content"]] == [
        block.get("text") for block in whole["content"]
    ]
    assert summed["stop_reason"] == whole["stop_reason"] == "end_turn"
    assert gateway.account(key).credits == 3


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (Kimi(), {}),
        (Kimi("", tools=CALLS), {"tools": TOOLS}),
        (Kimi(tools=CALLS), {"tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 2000}}),
        (Kimi(finish="length"), {}),
    ],
    ids=["text", "interleaved-calls", "text-and-calls", "length"],
)
def test_the_sdk_accumulates_a_stream_to_the_json_answer(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream, step: Kimi, more: dict[str, Any]
) -> None:
    upstream.always(step)
    key, body = gateway.key(5), BODY | more
    whole = done(sdk("whole", key=key, body=body))
    assert said(done(sdk("accumulated", key=key, body=body)), sdk) == said(whole, sdk)
    assert gateway.account(key).credits == 3


def test_blocks_are_what_the_model_said(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(Kimi(tools=CALLS))
    answer = done(sdk("whole", key=gateway.key(), body=BODY | {"tools": TOOLS}))
    thinking, text, *calls = answer["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", REASONING)
    assert (text["type"], text["text"]) == ("text", TEXT)
    assert [(call["name"], call["input"]) for call in calls] == CALLS
    assert answer["stop_reason"] == "tool_use"


def test_tokens_are_counted(sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key(5)
    body = {"model": "kimi-k3", "messages": HELLO}
    assert done(sdk("count", key=key, body=body))["input_tokens"] > 0
    assert gateway.account(key).credits == 5


def test_models_are_listed_and_each_is_found(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key(5)
    models = done(sdk("models", key=key, body={"limit": 2}))
    assert {"kimi-k3", "kimi-k2.6"} <= {model["id"] for model in models}
    assert len({model["id"] for model in models}) == len(models)
    for model in models[:3]:
        assert model["type"] == "model"
        assert model["display_name"]
        assert datetime.fromisoformat(model["created_at"]).tzinfo is not None
        assert done(sdk("model", key=key, body={"model": model["id"]})) == model
    missing = sdk("model", key=key, body={"model": "no-such"})
    assert (missing.classes[0], missing.status) == ("NotFoundError", 404)
    assert gateway.account(key).credits == 5


def test_an_old_one_sends_its_key_as_x_api_key_and_a_new_one_as_bearer(
    sdk: Driver, up: ScriptedUpstream
) -> None:
    """Seen on a server without the gateway between. A token is a Bearer everywhere."""
    base = up.url.removesuffix("/v1")
    sdk("whole", base, key="one", body=BODY)
    sdk("whole", base, token="two", body=BODY)
    names = ("authorization", "x-api-key")
    by_key, by_token = ([request.headers.get(name) for name in names] for request in up.requests)
    assert by_key == (["Bearer one", None] if sdk.name in NEW else [None, "one"])
    assert by_token == ["Bearer two", None]


def test_a_token_is_as_good_as_a_key(sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key(5)
    done(sdk("whole", key=key, body=BODY))
    done(sdk("whole", token=key, body=BODY))
    assert gateway.account(key).credits == 3


REFUSALS = {
    "shape": (None, {"temperature": 9}, "BadRequestError", 400),
    "unknown model": (None, {"model": "no-such"}, "NotFoundError", 404),
    "upstream busy": (rate_limited("rate_limit_reached", retry_after=30), {}, "RateLimitError", 429),
    "upstream down": (HtmlError(), {}, "APIError", 503),
    "upstream's refusal": (
        Status(400, error("invalid_request_error", "org-0123456789 bad")),
        {},
        "BadRequestError",
        400,
    ),
}


@pytest.mark.parametrize("verb", ["whole", "chunks"])
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_become_the_sdks_own_exceptions(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream, case: str, verb: str
) -> None:
    step, more, kind, status = REFUSALS[case]
    if step:
        upstream.always(step)
    key = gateway.key(5)
    outcome = sdk(verb, key=key, body=BODY | more)
    assert outcome.status == status
    assert {kind, "APIError"} <= set(outcome.classes)
    assert "org-" not in outcome.message
    assert gateway.account(key).credits == 5


def test_a_key_that_may_not_is_refused_as_the_sdk_expects(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    assert sdk("whole", key="sk-kg-" + "x" * 38, body=BODY).classes[0] == "AuthenticationError"
    assert sdk("whole", key=gateway.key(0), body=BODY).classes[0] == "PermissionDeniedError"
    spent = gateway.limit(gateway.key(), Budget("tokens", "day", 10))
    assert sdk("whole", key=spent, body=BODY).classes[0] == "PermissionDeniedError"
    assert not upstream.chats


def test_an_error_in_mid_stream_is_an_api_error_after_the_content(
    sdk: Driver, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(ErrorEvent(4, inner=Kimi(reasoning="")))
    key = gateway.key(5)
    outcome = sdk("chunks", key=key, body=BODY)
    assert "APIError" in outcome.classes
    text = "".join(event["delta"].get("text", "") for event in outcome.seen if "delta" in event)
    assert text
    assert TEXT.startswith(text)
    assert all(event["type"] != "message_stop" for event in outcome.seen)
    assert gateway.account(key).credits == 5
