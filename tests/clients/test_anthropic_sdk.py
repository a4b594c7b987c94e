"""The official Anthropic SDK, unchanged, against the gateway on a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from clients.anthropic_sdk import ASK, HELLO, Async, Blocking, Sdk
from kimi_gateway.accounts.values import Budget, Limits
from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import vendors
from support import sdks
from support.live import LiveGateway
from upstream import ErrorEvent, Kimi, ScriptedUpstream, Status, error
from upstream.kimi import REASONING, TEXT
from upstream.steps import rate_limited

Connect = Callable[..., Sdk]
BASES = ["", "/api", "/anthropic", "/api/anthropic", "/v1"]
TOOLS: Any = [
    {"name": name, "input_schema": {"type": "object", "properties": {}}}
    for name in ("get_weather", "get_time")
]
CALLS = [("get_weather", {"city": "Roma", "unit": "°C"}), ("get_time", {"zone": "Europe/Rome"})]
ADAPTIVE: Any = {"type": "adaptive"}


@pytest.fixture(params=[Blocking, Async], ids=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, gateway: LiveGateway, upstream: ScriptedUpstream
) -> Iterator[Connect]:
    """An SDK client with a key of its own, or with the one given."""
    with ExitStack() as stack:

        def make(key: str | None = None, base: str = "", as_: str = "api_key") -> Sdk:
            sdk: Sdk = stack.enter_context(request.param(gateway.url + base, **{as_: key or gateway.key()}))
            return sdk

        yield make


@pytest.fixture
def sdk(connect: Connect) -> Sdk:
    return connect()


def same(summed: Any, whole: Any) -> bool:
    """But for the ids, which each answer has of its own."""
    summed, whole = summed.model_copy(deep=True), whole.model_copy(deep=True)
    for message in (summed, whole):
        for block in message.content:
            if block.type == "tool_use":
                block.id = vendors(ids.upstream(block.id))
    return bool(summed.to_dict() | {"id": ""} == whole.to_dict() | {"id": "", "stop_details": None})


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("as_", ["api_key", "auth_token"])
def test_a_stream_is_accumulated_to_the_json_answer(
    connect: Connect, gateway: LiveGateway, base: str, as_: str
) -> None:
    key = gateway.key(2)
    sdk = connect(key, base, as_)
    whole = sdk.create(thinking=ADAPTIVE)
    _, summed = sdk.accumulated(thinking=ADAPTIVE)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert (whole.content[0].thinking, whole.content[1].text) == (REASONING, TEXT)
    assert whole.content[0].signature
    assert (whole.stop_reason, whole.model, whole.role) == ("end_turn", "kimi-k3", "assistant")
    assert same(summed, whole)
    assert whole._request_id.startswith("req_")
    assert gateway.account(key).credits == 0


def test_the_events_are_the_sdks_own(sdk: Sdk) -> None:
    events, _ = sdk.accumulated()
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert {"thinking", "signature", "text", "content_block_start", "content_block_stop"} <= set(kinds)
    assert "".join(event.text for event in events if event.type == "text") == TEXT


def test_a_tool_goes_round(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.plan(Kimi(text="Wait.", tools=CALLS), Kimi(text="Wait.", tools=CALLS), Kimi(text="Sunny."))
    whole = sdk.create(tools=TOOLS, thinking=ADAPTIVE)
    _, summed = sdk.accumulated(tools=TOOLS, thinking=ADAPTIVE)
    assert whole.stop_reason == "tool_use"
    assert same(summed, whole)
    calls = [block for block in whole.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == CALLS
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "20 °C"} for call in calls]
    history = [*HELLO, whole.to_param(), {"role": "user", "content": results}]
    answer = sdk.create(messages=history, tools=TOOLS, thinking=ADAPTIVE)
    assert answer.content[-1].text == "Sunny."
    sent = upstream.chats[-1].body["messages"]
    assert sent[1]["reasoning_content"] == REASONING
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["get_weather:0", "get_time:1"]
    assert [said["tool_call_id"] for said in sent[2:]] == ["get_weather:0", "get_time:1"]


def test_no_thinking_is_shown_to_whom_wants_none(sdk: Sdk) -> None:
    assert [block.type for block in sdk.create(thinking={"type": "disabled"}).content] == ["text"]
    _, summed = sdk.accumulated(thinking={"type": "disabled"})
    assert [block.type for block in summed.content] == ["text"]


def test_a_stop_sequence_is_named(sdk: Sdk, upstream: ScriptedUpstream) -> None:
    upstream.always(Kimi(text="one, two, three"))
    whole = sdk.create(stop_sequences=["two", "x"])
    assert (whole.stop_reason, whole.stop_sequence, whole.content[-1].text) == (
        "stop_sequence",
        "two",
        "one, ",
    )
    _, summed = sdk.accumulated(stop_sequences=["two", "x"])
    assert (summed.stop_reason, summed.stop_sequence) == ("stop_sequence", "two")


def test_tokens_are_counted_for_nothing(connect: Connect, gateway: LiveGateway) -> None:
    key = gateway.key(0)
    sdk = connect(key)
    assert (
        0 < sdk.count() < sdk.count(system="Be kind. " * 9) < sdk.count(system="Be kind. " * 9, tools=TOOLS)
    )
    assert gateway.account(key).credits == 0


def failing(sdk: Sdk, kind: Any, **body: Any) -> Any:
    """The exception, of this kind whether streamed or not."""
    with pytest.raises(kind) as streamed:
        sdk.accumulated(**body)
    with pytest.raises(kind) as failed:
        sdk.create(**body)
    assert streamed.value.status_code == failed.value.status_code
    assert failed.value.request_id
    assert isinstance(failed.value.body, dict)
    assert failed.value.body["request_id"] == failed.value.request_id
    return failed.value


def test_errors_become_its_exceptions(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    sdk = connect()
    failing(connect("sk-kg-" + "x" * 38), sdks.anthropic.AuthenticationError)
    failing(connect(gateway.key(0)), sdks.anthropic.PermissionDeniedError)
    poor = gateway.limit(gateway.key(), Budget("tokens", "day", 10))
    assert "tokens a day" in failing(connect(poor), sdks.anthropic.PermissionDeniedError).message
    assert failing(sdk, sdks.anthropic.NotFoundError, model="gpt-4").type == "not_found_error"
    odd = [{"role": "user", "content": [{"type": "odd"}]}]
    wrong = failing(sdk, sdks.anthropic.BadRequestError, messages=odd)
    assert (wrong.type, wrong.api_message) == (
        "invalid_request_error",
        "messages.0.content.0.type: 'odd' is not an allowed content block here",
    )
    upstream.always(rate_limited("rate_limit_reached", 30))
    limited = failing(sdk, sdks.anthropic.RateLimitError)
    assert limited.response.headers["retry-after"] == "30"
    upstream.always(Status(401, error("incorrect_api_key_error", "Incorrect API key provided")))
    assert failing(sdk, sdks.anthropic.InternalServerError).status_code == 503


def test_a_limit_of_the_keys_own_is_its_rate_limit_error(connect: Connect, gateway: LiveGateway) -> None:
    sdk = connect(gateway.key(5, Limits(day=1)))
    sdk.create()
    limited = failing(sdk, sdks.anthropic.RateLimitError)
    assert 1 <= int(limited.response.headers["retry-after"]) <= 86_400


def test_a_break_in_the_stream_is_raised(
    connect: Connect, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(ErrorEvent(4))
    key = gateway.key(5)
    with pytest.raises(sdks.anthropic.APIStatusError) as broken:
        connect(key).accumulated()
    assert "org-" not in str(broken.value)
    assert gateway.account(key).credits == 5


def test_beta_calls_work_with_their_query_and_header(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    with Blocking(gateway.url, auth_token=gateway.key()) as sdk:
        answer = sdk.client.beta.messages.create(
            **ASK,
            betas=["interleaved-thinking-2025-05-14"],
            context_management={"edits": []},
            system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        )
        counted = sdk.client.beta.messages.count_tokens(model="kimi-k3", messages=HELLO)
    assert answer.content[-1].type == "text"
    assert counted.input_tokens > 0
    assert upstream.chats[0].body["messages"][0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize("base", ["", "/api", "/anthropic", "/api/anthropic"])
def test_the_models_are_listed_to_their_end_and_told_one_by_one(gateway: LiveGateway, base: str) -> None:
    url, key = gateway.url + base, gateway.key(0)
    with sdks.anthropic.Anthropic(base_url=url, api_key=key, _strict_response_validation=True) as client:
        listed = list(client.models.list(limit=2))
        one = client.models.retrieve("kimi-k3")
        with pytest.raises(sdks.anthropic.NotFoundError) as unknown:
            client.models.retrieve("nobody/knows")
    assert ("request_id" in str(unknown.value)) == ("anthropic" in base)  # the path decides the error's shape
    ids = [model.id for model in listed]
    assert len(ids) == len(set(ids)) > 5
    assert all(model.type == "model" and model.created_at.year >= 2025 for model in listed)
    assert (one.id, one.display_name, one.max_input_tokens) == ("kimi-k3", "Kimi K3", 1_048_576)
