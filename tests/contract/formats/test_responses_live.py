"""Responses over a socket: silence, cuts and credits, as a client without an SDK sees them."""

from __future__ import annotations

from typing import Any

import pytest

from support.error_shape import openai_error
from support.live import LiveGateway
from support.response_events import Checker, checked, events_of
from upstream import ErrorEvent, Kimi, NoDone, ScriptedUpstream

ASK: dict[str, Any] = {"model": "kimi-k3", "input": "Hello", "stream": True}


def asked(gateway: LiveGateway, key: str, **body: Any) -> tuple[int, dict[str, str], bytes]:
    with gateway.client(key) as client:
        response = client.post("/v1/responses", json=ASK | body)
    return response.status_code, dict(response.headers), response.content


def test_a_stream_that_breaks_inside_a_call_fails_and_gives_the_credit_back(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(ErrorEvent(8, inner=Kimi("Look.", "", tools=[("f", {"a": "b" * 40})])))
    key = gateway.key(5)
    status, _, stream = asked(gateway, key)
    events, checker = events_of(stream), Checker()
    checker.feed(events)
    assert (status, events[-1]["type"]) == (200, "error")
    assert any(event["type"] == "response.function_call_arguments.delta" for event in events)
    assert checker.response is not None
    assert checker.response["status"] == "failed"
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 5


def test_an_answer_without_done_is_whole_where_it_finished(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(NoDone(inner=Kimi()))
    key = gateway.key(5)
    _, headers, stream = asked(gateway, key, temperature=0.3)
    assert checked(stream)["status"] == "completed"
    assert gateway.account(key).credits == 4
    assert headers["x-credits-remaining"] == "4"
    assert headers["x-ratelimit-limit"] == "20"
    assert headers["x-param-ignored"] == "temperature"
    assert headers["cache-control"] == "no-cache"


BAD = {"type": "object", "properties": {"a": {"$ref": "https://a.test/schema"}}}
FOUND_LATE: dict[str, tuple[dict[str, Any], str]] = {
    "the answer's schema": (
        {"text": {"format": {"type": "json_schema", "schema": BAD}}},
        "text.format.schema.properties.a.$ref",
    ),
    "an input beyond the model's": ({"model": "kimi-k2", "input": "word " * 200_000}, "input"),
}


@pytest.mark.parametrize("case", FOUND_LATE)
def test_what_a_model_does_not_take_is_named_as_the_client_called_it(gateway: LiveGateway, case: str) -> None:
    more, field = FOUND_LATE[case]
    with gateway.client(gateway.key(5)) as client:
        response = client.post("/v1/responses", json={"model": "kimi-k3", "input": "Hi"} | more)
    assert response.status_code == 400
    error = openai_error(response.json())
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: ") or error["code"] == "context_length_exceeded"


def test_a_refused_request_names_its_field_and_costs_nothing(gateway: LiveGateway) -> None:
    key = gateway.key(5)
    with gateway.client(key) as client:
        body = {
            "model": "kimi-k3",
            "input": "Hi",
            "tools": [{"type": "function", "name": "f", "defer_loading": True}],
        }
        response = client.post("/api/v1/responses", json=body)
    assert response.status_code == 400
    assert openai_error(response.json())["param"] == "tools.0.defer_loading"
    assert gateway.account(key).credits == 5
