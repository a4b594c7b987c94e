"""Responses over a socket: silence, cuts and credits, as a client without an SDK sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contract.error_shape import openai_error
from live import LiveGateway
from response_events import Checker, checked, events_of
from upstream import CLOSE, Cut, Delay, ErrorEvent, HtmlError, Kimi, Malformed, NoDone, ScriptedUpstream, Step

ASK: dict[str, Any] = {"model": "kimi-k3", "input": "Hello", "stream": True}


def asked(gateway: LiveGateway, key: str, **body: Any) -> tuple[int, dict[str, str], bytes]:
    with gateway.client(key) as client:
        response = client.post("/v1/responses", json=ASK | body)
    return response.status_code, dict(response.headers), response.content


def test_a_silent_upstream_is_told_by_events_that_keep_their_numbers(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url, ping_interval=0.05) as gateway:
        up.plan(Delay(0.5, Kimi()))
        status, _, stream = asked(gateway, gateway.key())
    assert status == 200
    kinds = [event["type"] for event in events_of(stream)]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.in_progress"]
    assert checked(stream)["status"] == "completed"
    assert b"\n: " not in stream


BROKEN: dict[str, Step] = {
    "cut": Cut(1200, Kimi(reasoning=""), CLOSE),
    "an error event": ErrorEvent(4, inner=Kimi(reasoning="")),
    "no JSON": Malformed(4, Kimi(reasoning="")),
    "a cut in a call": ErrorEvent(8, inner=Kimi("Look.", "", tools=[("f", {"a": "b" * 40})])),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_stream_fails_and_gives_the_credit_back(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str
) -> None:
    upstream.always(BROKEN[case])
    key = gateway.key(5)
    status, _, stream = asked(gateway, key)
    events, checker = events_of(stream), Checker()
    checker.feed(events)
    assert (status, events[-1]["type"]) == (200, "error")
    assert any(event["type"].endswith(".delta") for event in events)
    assert checker.response is not None
    assert checker.response["status"] == "failed"
    assert b"org-" not in stream
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 5


def test_a_failure_before_any_content_is_a_status(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.always(HtmlError())
    for stream in (True, False):
        status, headers, body = asked(gateway, gateway.key(5), stream=stream)
        assert status == 503
        assert headers["content-type"] == "application/json"
        assert headers["x-credits-remaining"] == "5"
        assert b"<html" not in body


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
FUNCTION = {"type": "function", "name": "f", "parameters": BAD}
FOUND_LATE: dict[str, tuple[dict[str, Any], str]] = {
    "a schema behind a hosted tool": (
        {"tools": [{"type": "web_search"}, FUNCTION]},
        "tools.1.parameters.properties.a.$ref",
    ),
    "a schema in a namespace": (
        {"tools": [{"type": "namespace", "name": "n", "tools": [FUNCTION]}]},
        "tools.0.tools.0.parameters.properties.a.$ref",
    ),
    "a schema that comes with the input": (
        {"input": [{"role": "user", "content": "Hi"}, {"type": "additional_tools", "tools": [FUNCTION]}]},
        "input.1.tools.0.parameters.properties.a.$ref",
    ),
    "the answer's schema": (
        {"text": {"format": {"type": "json_schema", "schema": BAD}}},
        "text.format.schema.properties.a.$ref",
    ),
    "a limit beyond the model's": ({"max_output_tokens": 2**21}, "max_output_tokens"),
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
