"""Usage of whole requests: what the vendor counts and bills is in the rows, in all three formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.accounts.values import Budget, UsageRow
from kimi_gateway.net.http import ConnectFailed
from support.budgeting import limit, spent
from support.inprocess import InProcess, Sent, Told, kimi, streamed, told
from upstream.kimi import chat_events, error

HELLO = [{"role": "user", "content": "Hello"}]
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": HELLO}),
    "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 900}),
    "responses": ("/v1/responses", {"input": "Hello"}),
}
# USD for a million tokens: input 2, from the cache 0.20, written to it for an hour 4, output 10.
MODEL = "kimi-k3.1-pro"


@pytest.fixture(scope="module")
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def answers(**usage: Any) -> Any:
    def answer(sent: Sent) -> Told:
        return streamed(*chat_events(model=sent.body["model"], usage=usage))

    return answer


USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 100,
    "total_tokens": 1_100,
    "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 200},
    "completion_tokens_details": {"reasoning_tokens": 30},
}


def row_of(desk: InProcess, key: str) -> UsageRow:
    (row,) = desk.run(desk.store.usage(0, desk.account(key).id))
    assert isinstance(row, UsageRow)
    return row


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_a_row_has_the_vendors_counts_and_their_price(desk: InProcess, format: str, stream: bool) -> None:
    path, body = FORMATS[format]
    key = desk.key()
    desk.client.answer = answers(**USAGE)
    assert desk.call("POST", path, {"model": MODEL, "stream": stream, **body}, key).status == 200
    row = row_of(desk, key)
    assert (row.model, row.requests, row.credits, row.errors) == (MODEL, 1, 1, 0)
    assert (row.input, row.cached, row.written) == (1_000, 400, 200)
    assert (row.output, row.reasoning) == (100, 30)
    assert row.cost == row.last_cost == 600 * 2 + 400 * 20 // 100 + 100 * 10
    assert row.saved == 400 * 180 // 100
    assert row.fees == 0


def test_input_written_to_the_cache_for_an_hour_has_its_own_price(desk: InProcess) -> None:
    key = desk.key()
    desk.client.answer = answers(**USAGE)
    body = {"model": MODEL, "messages": HELLO, "prompt_cache_options": {"ttl": "1h"}}
    assert desk.call("POST", "/v1/chat/completions", body, key).status == 200
    assert row_of(desk, key).cost == 400 * 2 + 400 * 20 // 100 + 200 * 4 + 100 * 10


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_row_budget_and_log_agree_on_what_the_cache_costs(
    desk: InProcess, caplog: pytest.LogCaptureFixture, ttl: str, said: bool
) -> None:
    """Where the vendor does not say what it wrote for an hour, that may be all that missed the cache."""
    key = desk.key()
    limit(desk, key, Budget("usd", "day", 10**9))
    details = {"cached_tokens": 400} | ({"cache_write_tokens": 200} if said else {})
    desk.client.answer = answers(**USAGE | {"prompt_tokens_details": details})
    body = {"model": MODEL, "messages": HELLO, "prompt_cache_options": {"mode": "implicit", "ttl": ttl}}
    with caplog.at_level("INFO"):
        assert desk.call("POST", "/v1/chat/completions", body, key).status == 200
    written = (200 if said else 600) if ttl == "1h" else 0
    micro = (600 - written) * 2 + written * 4 + 80 + 1_000
    (line,) = [each.fields for each in caplog.records if each.message == "request"]  # type: ignore[attr-defined]
    assert line["cost_usd"] == pytest.approx(micro / 1_000_000)
    assert row_of(desk, key).cost == micro
    assert spent(desk, key) == [micro]


def test_counts_that_no_request_can_have_are_bounded(desk: InProcess) -> None:
    key = desk.key()
    huge = {"prompt_tokens": 10**30, "completion_tokens": -5, "cached_tokens": 10**40}
    desk.client.answer = answers(**huge, completion_tokens_details=[7], prompt_tokens_details="x")
    assert desk.call("POST", "/v1/chat/completions", {"model": MODEL, "messages": HELLO}, key).status == 200
    row = row_of(desk, key)
    assert 0 < row.input <= 10**9
    assert row.cached <= 10**9
    assert (row.output, row.reasoning, row.written, row.requests) == (0, 0, 0, 1)
    assert 0 <= row.cost <= 10**10


FAILURES: dict[str, tuple[Any, str]] = {
    "5xx": (lambda sent: told(error("server_error", "down"), 500), "server"),
    "rate": (lambda sent: told(error("rate_limit_reached_error", "after 30 seconds"), 429), "rate"),
    "400": (lambda sent: told(error("invalid_request_error", "no"), 400), "invalid"),
    "quota": (lambda sent: told(error("exceeded_current_quota_error", "no"), 403), "quota"),
    "cut": (lambda sent: streamed(*chat_events(model="m")[:3], done=False), "broken"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_is_counted_by_its_cause(failure: str, stream: bool) -> None:
    answer, cause = FAILURES[failure]
    with InProcess() as desk:
        key = desk.key()
        desk.client.answer = answer
        desk.call("POST", "/v1/chat/completions", {"model": MODEL, "stream": stream, "messages": HELLO}, key)
        row = row_of(desk, key)
        assert (row.requests, row.errors, row.credits) == (0, 1, 0)
        assert row.causes == ((cause, 1),)


def test_an_upstream_that_cannot_be_reached_is_an_error_of_that_name(desk: InProcess) -> None:
    def refuse(sent: Sent) -> Told:
        raise ConnectFailed("refused")

    key = desk.key()
    desk.client.answer = refuse
    desk.call("POST", "/v1/chat/completions", {"model": MODEL, "messages": HELLO}, key)
    assert row_of(desk, key).causes == (("connect", 1),)


def test_usage_and_price_are_those_of_the_model_behind_an_alias() -> None:
    with InProcess(aliases=(("claude-*", MODEL), ("best", MODEL))) as desk:
        key = desk.key()
        desk.client.answer = answers(**USAGE)
        answer = desk.call("POST", "/v1/messages", {"model": "claude-opus-5", **FORMATS["messages"][1]}, key)
        assert (answer.status, answer.json["model"]) == (200, "claude-opus-5")
        row = row_of(desk, key)
        assert (row.model, row.cost) == (MODEL, 600 * 2 + 400 * 20 // 100 + 100 * 10)
        desk.client.answer = kimi
        listed = {entry["id"] for entry in desk.call("GET", "/v1/models", key=key).json["data"]}
        assert "best" in listed
        assert not any("*" in id for id in listed)
