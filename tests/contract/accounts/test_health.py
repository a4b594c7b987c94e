"""GET /health tells readiness by what requests met: without a call upstream, without a token's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.net.http import ConnectFailed, TimedOut
from support.inprocess import InProcess, Sent, Told, kimi, told

TOKENS = ("sk-upstream-1", "sk-upstream-2")


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess(moonshot_api_key=TOKENS) as desk:
        desk.run(desk.running.rest(5))  # the tokens are checked behind the start
        yield desk


def health(desk: InProcess) -> Any:
    """Its document; asking it sends nothing upstream, and it names no token."""
    before = len(desk.client.sent)
    answer = desk.call("GET", "/health")
    assert answer.status == 200
    assert len(desk.client.sent) == before
    assert b"tok_" not in answer.body
    assert b"sk-" not in answer.body
    return answer.json


def refused(kind: str, status: int) -> Any:
    return lambda sent: told({"error": {"type": kind, "message": "no"}}, status)


def unreachable(sent: Sent) -> Told:
    raise ConnectFailed("cannot resolve upstream.test (DNS)")


def silent(sent: Sent) -> Told:
    raise TimedOut("no answer within 600 s")


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        ("invalid_authentication_error", 401, "refused"),
        ("exceeded_current_quota_error", 429, "without credit"),
        ("rate_limit_reached_error", 429, "rate limited"),
    ],
)
def test_it_is_degraded_while_every_token_is_out_and_recovers_with_an_answer(
    desk: InProcess, kind: str, status: int, word: str
) -> None:
    key = desk.key()
    assert health(desk) == {"status": "ok", "provider": "moonshot", "problems": []}
    desk.client.answer = refused(kind, status)
    desk.chat(key, {})
    told = health(desk)
    assert (told["status"], told["problems"]) == ("degraded", [f"upstream: no token is available (2 {word})"])
    desk.client.answer = kimi
    desk.now += 61
    for _ in range(2):
        assert desk.chat(key, {}).status == 200
    assert health(desk)["status"] == "ok"


def test_one_token_that_is_out_is_no_trouble_while_another_serves(desk: InProcess) -> None:
    def first_refused(sent: Sent) -> Told:
        return kimi(sent) if sent.headers["authorization"].endswith("2") else refused("x", 401)(sent)

    desk.client.answer = first_refused
    for _ in range(4):
        assert desk.chat(desk.key(), {}).status == 200
    assert health(desk)["status"] == "ok"


@pytest.mark.parametrize("upstream", [unreachable, silent])
def test_it_is_degraded_after_a_request_that_nobody_answered_for_five_minutes_at_most(
    desk: InProcess, upstream: Any
) -> None:
    key = desk.key()
    desk.client.answer = upstream
    assert desk.chat(key, {}).status == 503
    told = health(desk)
    assert told["status"] == "degraded"
    assert "answer" in told["problems"][0]
    desk.now += 120
    assert health(desk)["status"] == "degraded"
    desk.client.answer = kimi
    assert desk.chat(key, {}).status == 200
    assert health(desk)["status"] == "ok"
    desk.client.answer = silent
    assert desk.chat(key, {}).status == 503
    assert health(desk)["status"] == "degraded"
    desk.now += 400
    assert health(desk)["status"] == "ok"


def test_the_demo_is_ready(tmp_path: Path) -> None:
    with InProcess(moonshot_api_key=(), data=tmp_path) as desk:
        assert health(desk) == {"status": "ok", "provider": "demo", "problems": []}


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        (unreachable, "Kimi cannot be reached from this gateway (3 attempts). Not charged."),
        (lambda sent: told({"error": {"type": "server_error", "message": "x"}}, 500),
         "Kimi did not answer (3 attempts). Not charged."),
        (silent, "Kimi did not answer in time. Not charged."),
        (refused("invalid_authentication_error", 401), "The operator's Kimi token is refused; tell them."),
        (refused("exceeded_current_quota_error", 429), "The operator's Kimi account has no credit"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_what_failed_upstream_is_reported_with_the_attempts_and_the_request(
    upstream: Any, said: str, path: str, stream: bool
) -> None:
    body: dict[str, Any] = {"model": "kimi-k3", "stream": stream}
    messages = [{"role": "user", "content": "Hello"}]
    body |= {"input": "Hello"} if path == "/v1/responses" else {"messages": messages, "max_tokens": 9}
    with InProcess() as desk:
        desk.client.answer = upstream
        key = desk.key(5)
        answer = desk.call("POST", path, body, key=key)
        assert answer.status == 503
        message = answer.json["error"]["message"]
        assert message.startswith(said)
        assert message.endswith(f" Request {answer.headers['x-request-id']}.")
        assert (desk.account(key).credits, desk.account(key).reserved) == (5, 0)
