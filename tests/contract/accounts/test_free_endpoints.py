"""The free endpoints: what they say, to whom, and that they cost nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.accounts.values import Grant, Key, Limits
from kimi_gateway.net.http import ConnectFailed
from kimi_gateway.storage.memory import MemoryStore
from support.error_shape import openai_error
from support.inprocess import NOW, InProcess, Sent, Told, kimi, told
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream


@pytest.fixture
def desk() -> Iterator[InProcess]:
    """Its upstream takes `sk-live` and the gateway's own token."""
    with InProcess() as desk:
        desk.client.answer = only_live
        yield desk


def only_live(sent: Sent) -> Told:
    if sent.headers["authorization"] not in ("Bearer sk-live", "Bearer sk-upstream-1"):
        return told({"error": {"type": "incorrect_api_key_error", "message": "Incorrect API key"}}, 401)
    return kimi(sent)


def check(desk: InProcess, token: object, client: str = "192.0.2.1") -> tuple[int, object]:
    answer = desk.call("POST", "/token/check", {"token": token}, client=client)
    return answer.status, answer.json.get("live")


def test_a_token_is_live_or_not_and_a_key_of_ours_too(desk: InProcess) -> None:
    key, revoked = desk.key(0), desk.key()
    desk.run(desk.store.revoke_key(keys.digest(revoked), NOW))
    assert check(desk, "sk-live") == (200, True)
    assert check(desk, "sk-dead") == (200, False)
    assert check(desk, key) == (200, True)
    assert check(desk, revoked) == (200, False)
    assert check(desk, keys.new_key()) == (200, False)


# The token of the first free API's README, as its page shows it, and others that the platform never made.
WEB = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9..."
FOREIGN = [
    WEB,
    "eyJhbGciOiJIUzUxMiJ9.eyJ0eXAiOiJhY2Nlc3MifQ.c2ln",
    "garbage",
    "sk-one,sk-two",
    "sk-" + "x" * 300,
]


@pytest.mark.parametrize("token", ["", "a b", "ключ", "a\nb: c", "\x00", "k" * 5000, *FOREIGN])
def test_what_cannot_be_a_token_is_dead_without_a_question(desk: InProcess, token: str) -> None:
    assert check(desk, token) == (200, False)
    assert not desk.client.sent


@pytest.mark.parametrize("token", [7, None, True, ["sk-live"], {"sk": "live"}])
def test_a_token_that_is_no_string_is_named(desk: InProcess, token: object) -> None:
    answer = desk.call("POST", "/token/check", {"token": token})
    assert (answer.status, openai_error(answer.json)["param"]) == (400, "token")


def test_the_upstream_is_asked_once_in_ten_minutes(desk: InProcess) -> None:
    for _ in range(3):
        assert check(desk, "sk-live") == (200, True)
        assert check(desk, "sk-dead") == (200, False)
    assert len(desk.client.sent) == 2
    desk.now += 599
    check(desk, "sk-live")
    assert len(desk.client.sent) == 2
    desk.now += 1
    check(desk, "sk-live")
    assert len(desk.client.sent) == 3


def test_an_address_may_ask_about_sixty_unknown_tokens_a_minute(desk: InProcess) -> None:
    check(desk, "sk-live")
    for number in range(59):
        desk.now += 0.5
        assert check(desk, f"sk-dead-{number}")[0] == 200
    answer = desk.call("POST", "/token/check", {"token": "sk-one-more"}, client="192.0.2.1")
    assert (answer.status, openai_error(answer.json)["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "31"
    assert check(desk, "sk-live") == (200, True)
    assert check(desk, "sk-one-more", client="192.0.2.2") == (200, False)
    desk.now += 31
    assert check(desk, "sk-another") == (200, False)


def test_all_addresses_together_ask_the_upstream_ten_times_a_second_at_most(desk: InProcess) -> None:
    said = [check(desk, f"sk-dead-{n}", client=f"198.51.{n // 200}.{n % 200}")[0] for n in range(500)]
    assert (said.count(200), said.count(429), len(desk.client.sent)) == (300, 200, 300)
    assert check(desk, "sk-dead-7", client="192.0.2.9") == (200, False)  # known
    desk.now += 1
    assert [check(desk, f"sk-new-{n}", client=f"203.0.113.{n}")[0] for n in range(11)] == [200] * 10 + [429]


def test_the_addresses_of_one_ipv6_network_count_as_one(desk: InProcess) -> None:
    said = [check(desk, f"sk-dead-{n}", client=f"2001:db8::{n:x}")[0] for n in range(61)]
    assert said == [200] * 60 + [429]


def test_while_the_upstream_is_down_nothing_is_known_and_nothing_remembered(desk: InProcess) -> None:
    def down(sent: Sent) -> Told:
        raise ConnectFailed("refused")

    desk.client.answer = down
    answer = desk.call("POST", "/token/check", {"token": "sk-live"})
    assert (answer.status, openai_error(answer.json)["code"]) == (503, "service_unavailable")
    desk.client.answer = only_live
    assert check(desk, "sk-live") == (200, True)


def test_tokens_are_estimated_for_every_name_of_a_model(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    with gateway.client(gateway.key(1)) as client:
        for model in ("kimi-k3", "kimi-k2", "kimi-k3[1m]"):
            answer = client.post(
                "/v1/tokenizers/estimate-token-count", json={"model": model, "messages": HELLO}
            )
            assert answer.status_code == 200
            assert answer.json() == {"data": {"total_tokens": answer.json()["data"]["total_tokens"]}}
            assert answer.json()["data"]["total_tokens"] > 0
    asked = [request.body["model"] for request in upstream.requests]
    assert asked == ["kimi-k3", "kimi-k2.6", "kimi-k3"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"messages": HELLO}, 400, "model"),
        ({"model": "kimi-k3"}, 400, "messages"),
        ({"model": "kimi-k3", "messages": "x"}, 400, "messages"),
        ({"model": "gpt-4", "messages": HELLO}, 404, "model"),
        ([], 400, None),
    ],
)
def test_an_estimate_needs_a_model_and_messages(
    gateway: LiveGateway, upstream: ScriptedUpstream, body: object, status: int, field: str | None
) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.post("/v1/tokenizers/estimate-token-count", json=body)
    assert (answer.status_code, openai_error(answer.json())["param"]) == (status, field)


def test_the_balance_is_for_keys_that_may_see_it(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    with gateway.client(gateway.key(1, see_balance=True)) as client:
        answer = client.get("/v1/users/me/balance")
    assert answer.json() == {
        "code": 0,
        "data": {"available_balance": 49.58, "voucher_balance": 46.58, "cash_balance": 3.0},
        "scode": "0x0",
        "status": True,
    }
    upstream.requests.clear()
    with gateway.client(gateway.key()) as client:
        refused = client.get("/v1/users/me/balance")
    assert (refused.status_code, openai_error(refused.json())["code"]) == (403, "permission_denied")
    assert not upstream.requests


def test_credits_show_the_callers_own_numbers_only(desk: InProcess) -> None:
    desk.client.answer = kimi
    mine, other = desk.key(5), desk.key(7)
    for key in (mine, mine, other):
        assert desk.chat(key, {}).status == 200
    desk.now += 3_600
    assert desk.chat(mine, {"model": "gpt-4"}).status == 404
    assert desk.chat(mine, {}).status == 200
    desk.run(desk.store.grant(desk.account(mine).id, Grant(10, NOW + 86_400), NOW))
    body = desk.call("GET", "/api/user/credits", key=mine).json
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    hours = [time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(at)) for at in (NOW, NOW + 3_600)]
    each = body["average_tokens_per_request"]
    assert each > 0
    assert body == {
        "credits_remaining": 12,
        "credits_consumed": 3,
        "average_tokens_per_request": each,
        "usage": {
            "by_day": [{"date": day, "credits": 3, "requests": 3, "tokens": 3 * each}],
            "by_hour": [
                {"hour": hours[0], "credits": 2, "requests": 2, "tokens": 2 * each},
                {"hour": hours[1], "credits": 1, "requests": 1, "tokens": each},
            ],
        },
        "expiring": [
            {"credits": 10, "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + 86_400))}
        ],
    }


def test_credits_are_shown_at_a_balance_of_nothing_and_without_limit(desk: InProcess) -> None:
    for opening, shown in ((0, 0), (None, None)):
        answer = desk.call("GET", "/user/credits", key=desk.key(opening))
        assert (answer.status, answer.json["credits_remaining"]) == (200, shown)


def test_free_calls_take_no_credit_and_are_in_no_window(desk: InProcess) -> None:
    desk.client.answer = kimi
    key = desk.key(3, Limits(minute=2), see_balance=True)
    for _ in range(5):
        for path in ("/v1/models", "/v1/models/kimi-k2", "/user/credits", "/v1/users/me/balance"):
            assert desk.call("GET", path, key=key).status == 200
    first = desk.chat(key, {})
    assert (first.headers["x-ratelimit-remaining"], first.headers["x-credits-remaining"]) == ("1", "2")


def test_a_flood_of_free_calls_is_slowed_down(desk: InProcess) -> None:
    key = desk.key()
    statuses = [desk.call("GET", "/user/credits", key=key).status for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    assert desk.call("GET", "/user/credits", key=desk.key()).status == 200
    desk.now += 1
    assert desk.call("GET", "/user/credits", key=key).status == 200


def test_a_flood_is_told_when_it_may_go_on() -> None:
    with InProcess(register="open") as desk:
        key = desk.key()
        floods = {
            "free calls": lambda: desk.call("GET", "/user/credits", key=key),
            "refused": lambda: desk.chat(key, {"messages": []}),
            "unknown keys": lambda: desk.call("GET", "/user/credits", key=keys.new_key()),
            "registrations": lambda: desk.call("POST", "/user/register", {"name": 1}),
            "token checks": lambda: desk.call("POST", "/token/check", {"token": 1}),
        }
        for name, ask in floods.items():
            answer = next(each for each in iter(ask, None) if each.status == 429)
            text, wait = answer.json["error"]["message"], answer.headers["retry-after"]
            assert text.endswith(f" Try again in {wait} s."), (name, text)


class Down(MemoryStore):
    async def find_key(self, digest: str) -> Key | None:
        raise StoreDown("the disk is gone")


def test_health_is_503_and_says_why_while_the_store_is_down() -> None:
    with InProcess() as desk:
        assert desk.call("GET", "/health").json == {"status": "ok", "provider": "moonshot", "problems": []}
    with InProcess(store=Down()) as desk:
        answer = desk.call("GET", "/health")
        assert answer.status == 503
        assert answer.json == {"status": "unready", "problems": ["store: the disk is gone"]}
        assert desk.call("GET", "/ping").status == 200
        for path in ("/v1/models", "/user/credits"):
            refused = desk.call("GET", path, key=keys.new_key())
            assert (refused.status, openai_error(refused.json)["code"]) == (503, "service_unavailable")


def test_a_token_file_that_went_bad_is_reported_and_never_leads_to_the_demo(tmp_path: Path) -> None:
    with InProcess(data=tmp_path, moonshot_api_key=()) as desk:
        assert desk.call("GET", "/health").json["provider"] == "demo"
        (tmp_path / "tokens.json").write_text('{"sk-secret-1": ')
        health = desk.call("GET", "/health")
        assert health.status == 503
        assert [problem.partition(":")[0] for problem in health.json["problems"]] == ["tokens"]
        assert b"sk-secret" not in health.body
        key = desk.key(5)
        refused = desk.chat(key, {})
        assert (refused.status, openai_error(refused.json)["code"]) == (503, "service_unavailable")
        assert (desk.account(key).credits, desk.account(key).reserved) == (5, 0)
        (tmp_path / "tokens.json").write_text('["sk-live"]')
        assert desk.call("GET", "/health").json["provider"] == "moonshot"
        assert desk.chat(key, {}).status == 200
