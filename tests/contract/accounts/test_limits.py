"""Who is let in: keys, credits, windows, and the headers that tell of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Admission, Grant, Limits, NewKey
from support.error_shape import anthropic_error, openai_error
from support.inprocess import NOW, Answered, InProcess
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream, Status
from upstream.kimi import error

MINUTE_ENDS = NOW // 60 * 60 + 60


def window(answer: Answered) -> tuple[int, int, int]:
    limit, remaining, reset = (
        int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
    )
    return limit, remaining, reset


@pytest.mark.parametrize(
    ("balance", "limit"),
    [(1, 20), (100, 20), (101, 60), (1_000, 60), (1_001, 200), (10_000, 200), (10_001, 500)],
)
def test_the_tier_follows_the_balance(desk: InProcess, balance: int, limit: int) -> None:
    answer = desk.chat(desk.key(balance), {})
    assert answer.status == 200
    assert window(answer) == (limit, limit - 1, MINUTE_ENDS)
    assert answer.headers["x-credits-remaining"] == str(balance - 1)


def test_the_tier_falls_in_the_minute_after_the_credit_that_falls_below_it(desk: InProcess) -> None:
    key = desk.key(101)
    assert [window(desk.chat(key, {}))[:2] for _ in range(2)] == [(60, 59), (60, 58)]
    desk.now += 60
    assert window(desk.chat(key, {}))[:2] == (20, 19)


def test_no_credit_is_403_before_any_window(desk: InProcess) -> None:
    key = desk.key(0, Limits(minute=1))
    for _ in range(3):
        answer = desk.chat(key, {})
        assert answer.status == 403
        assert openai_error(answer.json) | {"message": ""} == {
            "message": "",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_credits",
        }
        assert answer.headers["x-credits-remaining"] == "0"
    assert desk.call("GET", "/v1/models", key=key).status == 200
    assert not desk.client.chats


def test_the_21st_request_of_a_minute_is_429_and_the_next_minute_is_new(desk: InProcess) -> None:
    key = desk.key(50)
    for left in range(19, -1, -1):
        assert window(desk.chat(key, {}))[1] == left
    desk.now += 7.5
    answer = desk.chat(key, {})
    assert answer.status == 429
    assert openai_error(answer.json)["code"] == "rate_limit_exceeded"
    assert window(answer) == (20, 0, MINUTE_ENDS)
    assert int(answer.headers["retry-after"]) == 23
    assert desk.account(key).credits == 30
    desk.now += 23
    assert window(desk.chat(key, {})) == (20, 19, MINUTE_ENDS + 60)


def test_a_grant_lifts_a_window_that_was_refused_at_once(desk: InProcess) -> None:
    key = desk.key(50)
    for _ in range(20):
        desk.chat(key, {})
    assert [desk.chat(key, {}).status for _ in range(3)] == [429] * 3
    desk.run(desk.store.grant(desk.account(key).id, Grant(100), int(desk.now)))
    answer = desk.chat(key, {})
    assert (answer.status, window(answer)[:2]) == (200, (60, 39))


def test_a_flood_on_a_full_window_asks_the_store_once_a_second(desk: InProcess) -> None:
    key, asked = desk.key(50), 0
    for _ in range(20):
        desk.chat(key, {})
    admit = desk.store.admit

    async def counted(*words: Any) -> Admission:
        nonlocal asked
        asked += 1
        return await admit(*words)

    desk.store.admit = counted  # type: ignore[method-assign]
    assert {desk.chat(key, {}).status for _ in range(50)} == {429}
    assert asked <= 6
    desk.now += 1
    assert {desk.chat(key, {}).status for _ in range(50)} == {429}
    assert asked <= 7


@pytest.mark.parametrize("credential", ["", "YOUR_KEY", "sk-upstream-token-0123456789"])
def test_a_key_that_is_none_of_ours_is_told_how_ours_begin(desk: InProcess, credential: str) -> None:
    answer = desk.call("GET", "/v1/models", key=credential or " ")
    assert answer.status == 401
    assert "begin with sk-kg-" in openai_error(answer.json)["message"]


def test_a_429_shows_the_window_that_refused(desk: InProcess) -> None:
    key = desk.key(50, Limits(minute=5, hour=2))
    assert [window(desk.chat(key, {}))[0] for _ in range(2)] == [5, 5]
    answer = desk.chat(key, {})
    hour_ends = NOW // 3_600 * 3_600 + 3_600
    assert (answer.status, window(answer)) == (429, (2, 0, hour_ends))
    assert int(answer.headers["retry-after"]) == hour_ends - NOW


def test_several_keys_of_an_account_share_its_credits_and_not_their_windows(desk: InProcess) -> None:
    first, second = desk.key(2), keys.new_key()
    account = desk.account(first).id
    desk.run(desk.store.create_key(NewKey(keys.digest(second), account, limits=Limits(minute=1)), NOW))
    assert [desk.chat(key, {}).status for key in (second, second, first, first)] == [200, 429, 200, 403]


def test_an_unlimited_account_has_no_limits_but_its_keys_own(desk: InProcess) -> None:
    answer = desk.chat(desk.key(None), {})
    assert not [name for name in answer.headers if name.startswith(("x-ratelimit", "x-credits"))]
    key = desk.key(None, Limits(minute=3))
    assert window(desk.chat(key, {}))[:2] == (3, 2)


def test_a_refusal_of_the_upstream_is_counted_and_not_charged(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(Status(400, error("invalid_request_error", "Invalid request: no")))
    key = gateway.key(50, Limits(day=1))
    refused = gateway.chat(key)
    assert (refused.status_code, refused.headers["x-credits-remaining"]) == (400, "50")
    assert gateway.chat(key).status_code == 429
    assert gateway.account(key).credits == 50


def test_of_fifty_at_once_with_one_credit_one_is_served(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key(1)

    async def storm() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        headers = {"authorization": f"Bearer {key}", "x-request-id": "all-the-same"}
        async with httpx.AsyncClient(limits=limits, headers=headers, timeout=60, trust_env=False) as client:
            body = {"model": "kimi-k3", "messages": HELLO}
            url = f"{gateway.url}/v1/chat/completions"
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(50)))

    answers = asyncio.run(storm())
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [403] * 49
    assert {openai_error(a.json())["code"] for a in answers if a.status_code == 403} == {
        "insufficient_credits"
    }
    account = gateway.account(key)
    assert (account.credits, account.reserved, account.consumed) == (0, 0, 1)
    assert len(upstream.chats) == 1


def test_a_revoked_key_is_refused_at_once_though_it_was_cached(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key, now = gateway.key(), int(time.time())
    with gateway.client(key) as client:
        assert gateway.chat(key).status_code == client.get("/v1/models").status_code == 200
        gateway.do(gateway.store.revoke_key(keys.digest(key), now))
        upstream.requests.clear()
        for answer in (gateway.chat(key), client.get("/v1/models"), client.get("/user/credits")):
            assert (answer.status_code, openai_error(answer.json())["code"]) == (401, "invalid_api_key")
    assert not upstream.requests


def test_another_key_of_the_account_lives_on(desk: InProcess) -> None:
    first, second = desk.key(9), keys.new_key()
    desk.run(desk.store.create_key(NewKey(keys.digest(second), desk.account(first).id), NOW))
    assert desk.chat(first, {}).status == desk.chat(second, {}).status == 200
    desk.run(desk.store.revoke_key(keys.digest(first), NOW))
    assert [desk.chat(key, {}).status for key in (first, second)] == [401, 200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
def test_either_header_opens_either_path_and_of_two_right_ones_bearer_wins(
    desk: InProcess, path: str
) -> None:
    body = {"model": "kimi-k3", "messages": HELLO}
    bearer, other = desk.key(9), desk.key(9)
    assert desk.call("POST", path, body, None, ("x-api-key", other)).status == 200
    assert desk.call("POST", path, body, bearer).status == 200
    assert desk.call("POST", path, body, bearer, ("x-api-key", bearer)).status == 200
    assert desk.call("POST", path, body, bearer, ("x-api-key", other)).status == 200
    assert (desk.account(bearer).credits, desk.account(other).credits) == (6, 8)


def test_without_credentials_the_shape_follows_the_path(desk: InProcess) -> None:
    refused = desk.call("POST", "/v1/chat/completions", b"{}", None, ("anthropic-version", "2023-06-01"))
    assert (refused.status, openai_error(refused.json)["code"]) == (401, "invalid_api_key")
    for path in ("/v1/messages", "/api/v1/v1/messages", "/anthropic/v1/messages"):
        assert anthropic_error(desk.call("POST", path, b"{}").json)["message"]
    assert not desk.client.sent


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/api/messages", "/responses", "/models", "/models/kimi-k3"]
)
def test_a_base_url_without_v1_is_reported_so(desk: InProcess, path: str) -> None:
    method = "GET" if "models" in path else "POST"
    answer = desk.call(method, path, {} if method == "POST" else None, key=desk.key())
    assert answer.status == 404
    assert "Your base URL probably lacks /v1." in answer.body.decode()
    twice = desk.call("POST", "/v1/v1/chat/completions", {}, key=desk.key())
    assert "has /v1 twice" in openai_error(twice.json)["message"]
    assert "/v1" not in desk.call("GET", "/nothing", key=desk.key()).json["error"]["message"]


def test_a_key_sees_and_uses_only_its_models(desk: InProcess) -> None:
    key = desk.key()

    def only(*models: str) -> None:
        desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, models=models), NOW))

    assert desk.chat(key, {"model": "kimi-k3"}).status == 200
    only("kimi-k2*")
    for path, body in (
        ("/v1/chat/completions", {}),
        ("/v1/messages", {"max_tokens": 9}),
        ("/v1/responses", {"input": "hi"}),
    ):
        hello = {"model": "kimi-k3"} | ({} if "input" in body else {"messages": HELLO}) | body
        answer = desk.call("POST", path, hello, key)
        assert answer.status == 403
        assert "kimi-k2*" in answer.json["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"
    listed = [model["id"] for model in desk.call("GET", "/v1/models", key=key).json["data"]]
    assert listed
    assert all(name.startswith("kimi-k2") for name in listed)
    assert desk.call("GET", "/v1/models/kimi-k3", key=key).status == 403
    assert desk.chat(key, {"model": "kimi-k2.6"}).status == 200
    only()
    assert desk.chat(key, {"model": "kimi-k3"}).status == 200
    assert desk.account(key).credits == 97
