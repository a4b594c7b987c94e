"""GET /user/usage and /user/status: what they say, to whom, in pages that end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget, Limits, NewKey
from support.error_shape import openai_error
from support.inprocess import NOW, InProcess, Sent, Told, streamed, told
from upstream.kimi import chat_events, error

HOUR, DAY = 3_600, 86_400
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "cached_tokens": 400, "total_tokens": 1_100}
COST = (600 * 300 + 400 * 30 + 100 * 1_500) / 100 / 1_000_000  # kimi-k3


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        desk.client.answer = answers
        yield desk


def answers(sent: Sent) -> Told:
    return streamed(*chat_events(model=sent.body["model"], usage=USAGE))


def get(desk: InProcess, path: str, key: str) -> Any:
    answer = desk.call("GET", path, key=key)
    assert answer.status == 200, answer.body
    return answer.json


def test_usage_by_each_of_its_columns(desk: InProcess) -> None:
    key = desk.key()
    desk.chat(key, {})
    desk.now += DAY + HOUR
    desk.chat(key, {"model": "kimi-k2.6"})
    desk.client.answer = lambda sent: told(error("server_error", "down"), 500)
    desk.chat(key, {})
    by_day = get(desk, "/user/usage", key)
    assert (by_day["by"], by_day["has_more"], by_day["next"]) == ("day", False, None)
    first, second = by_day["data"]
    assert first["day"] < second["day"]
    assert (first["requests"], first["cost_usd"], first["cached"]) == (1, COST, 400)
    assert (second["requests"], second["errors"], second["causes"]) == (1, 1, {"server": 1})
    assert by_day["total"]["requests"] == 2
    models = {row["model"]: row["errors"] for row in get(desk, "/api/user/usage?by=model", key)["data"]}
    assert models == {"kimi-k3": 1, "kimi-k2.6": 0}
    (hour,) = get(desk, "/user/usage?by=hour", key)["data"]
    assert hour["hour"].startswith(second["day"])
    (mine,) = get(desk, "/user/usage?by=key&since=2d", key)["data"]
    assert mine["key"] == desk.account(key).keys[0].id
    assert mine["key_name"] is None


def test_pages_end_and_together_have_every_row_once(desk: InProcess) -> None:
    key = desk.key()
    for _ in range(5):
        desk.chat(key, {})
        desk.now += HOUR
    seen, after = [], ""
    for _ in range(9):
        page = get(desk, f"/user/usage?by=hour&limit=2&after={after}", key)
        seen += [row["hour"] for row in page["data"]]
        assert page["total"]["requests"] == 5
        after = page["next"]
        if not page["has_more"]:
            break
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("query", "param"),
    [("by=account", "by"), ("by=", None), ("since=soon", "since"), ("since=9999999999999999d", "since"),
     ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=%D9%A3", "limit")],
)  # fmt: skip
def test_a_wrong_query_is_named(desk: InProcess, query: str, param: str | None) -> None:
    answer = desk.call("GET", f"/user/usage?{query}", key=desk.key())
    if param is None:
        assert answer.status == 200
    else:
        assert (answer.status, openai_error(answer.json)["param"]) == (400, param)


def test_nobody_sees_what_another_account_used(desk: InProcess) -> None:
    mine, other = desk.key(), desk.key()
    desk.chat(mine, {})
    secret = desk.account(mine).keys[0].id
    for path in (
        "/user/credits",
        "/user/status",
        *(f"/user/usage?by={by}" for by in ("day", "key", "model")),
    ):
        answer = desk.call("GET", path, key=other)
        assert answer.status == 200
        assert secret not in answer.body.decode()
    assert get(desk, "/user/usage", other)["data"] == []
    assert get(desk, "/user/credits", other)["credits_consumed"] == 0
    assert desk.call("GET", "/user/usage").status == 401


def test_the_status_line_has_what_is_left_and_what_the_last_request_cost(desk: InProcess) -> None:
    key = desk.key(9, Limits(minute=5))
    desk.run(
        desk.store.update_key(
            keys.digest(key),
            lambda old: replace(
                old, budgets=(Budget("usd", "day", 50_000), Budget("tokens", "month", 10**6))
            ),
            NOW,
        )
    )
    before = get(desk, "/user/status", key)
    assert (before["last_cost_usd"], before["last_request_at"], before["credits"]) == (None, None, 9)
    desk.chat(key, {})
    told_ = get(desk, "/user/status", key)
    assert told_["credits"] == 8
    assert told_["last_cost_usd"] == told_["used_today"]["cost_usd"] == COST
    assert told_["left_today"]["requests"] == 4_999
    assert told_["left_today"]["usd"] == pytest.approx(0.05 - COST)
    assert told_["left_today"]["tokens"] == 10**6 - 1_100
    assert told_["resets_at"] == "2026-11-21T00:00:00Z"
    assert told_["used_today"] == {"requests": 1, "tokens": 1_100, "cost_usd": COST}
    assert [(each["window"], each["limit"]) for each in told_["limits"]] == [
        ("minute", 5), ("hour", 600), ("day", 5_000)
    ]  # fmt: skip
    budget = told_["budgets"][0]
    assert (budget["scope"], budget["unit"], budget["period"]) == ("key", "usd", "day")
    assert budget["spent"] + budget["remaining"] == pytest.approx(budget["limit"])
    assert told_["key"]["id"] == desk.account(key).keys[0].id
    assert b"\n" not in desk.call("GET", "/user/status", key=key).body


def test_a_revoked_key_sees_nothing_at_once(desk: InProcess) -> None:
    key = desk.key()
    assert get(desk, "/user/status", key)
    desk.run(desk.store.revoke_key(keys.digest(key), NOW))
    for path in ("/user/status", "/user/credits", "/user/usage"):
        assert desk.call("GET", path, key=key).status == 401


def test_a_changed_key_is_read_again(desk: InProcess) -> None:
    key = desk.key()
    assert get(desk, "/user/status", key)["key"]["name"] == ""
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, name="new"), NOW))
    assert get(desk, "/user/status", key)["key"]["name"] == "new"


def test_usage_by_key_has_the_names_of_the_account(desk: InProcess) -> None:
    key, second = desk.key(), keys.new_key()
    account = desk.account(key)
    desk.run(desk.store.create_key(NewKey(keys.digest(second), account.id, "phone"), NOW))
    desk.chat(second, {})
    (row,) = get(desk, "/user/usage?by=key", key)["data"]
    assert row["key_name"] == "phone"
