"""The operator's API: who may use it, and that it does what the command line does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import NewKey
from kimi_gateway.edge.admin_routes import TABLE
from kimi_gateway.edge.router import Access, Router
from kimi_gateway.edge.routes import routes
from kimi_gateway.providers.tokens.outages import MEND
from support.error_shape import openai_error
from support.inprocess import NOW, InProcess, kimi, told
from upstream.kimi import error


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        desk.client.answer = kimi
        yield desk


@pytest.fixture
def boss(desk: InProcess) -> str:
    """An operator's key."""
    key = desk.key()
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, operator=True), NOW))
    return key


def ask(desk: InProcess, boss: str, method: str, path: str, body: object = b"", status: int = 200) -> Any:
    answer = desk.call(method, path, body, boss)
    assert answer.status == status, answer.body
    return answer.json


def test_every_route_of_the_operator_refuses_everybody_else(desk: InProcess, boss: str) -> None:
    user, child = desk.key(), keys.new_key()
    maker = desk.account(boss).keys[0]
    made = NewKey(keys.digest(child), maker.account, made_by=maker.id, operator=True)
    desk.run(desk.store.create_key(made, NOW))
    seen = [route for route in desk.router.table if route.path.startswith("/admin/")]
    assert {(route.method, route.path) for route in seen} == {row[:2] for row in TABLE}
    assert all((route.access is Access.OPERATOR) == (route in seen) for route in desk.router.table)
    victim = desk.account(user)
    for route in seen:
        path = route.shown.format(account=victim.id, key=victim.keys[0].id)
        for prefix in ("", "/api"):
            refused = desk.call(route.method, prefix + path, route.example or b"", user)
            assert (refused.status, openai_error(refused.json)["code"]) == (403, "permission_denied"), path
        assert desk.call(route.method, path, route.example or b"", child).status == 403, path
        assert desk.call(route.method, path, route.example or b"").status == 401, path
        assert desk.call(route.method, path, route.example or b"", keys.new_key()).status == 401, path
        desk.now += 10  # the buckets of free calls
    assert desk.account(user) == victim


def test_packages_are_those_that_can_be_granted(desk: InProcess, boss: str) -> None:
    gateway = desk.running.gateway
    gateway.settings = replace(gateway.settings, packages=(("trial", 70, 2), ("starter", 600, None)))
    desk.router = Router(routes(gateway, desk.running.endpoints))
    named = {each.pop("name"): each for each in ask(desk, boss, "GET", "/admin/packages")["data"]}
    assert named["trial"] == {"credits": 70, "months": 2}
    assert named["starter"] == {"credits": 600, "months": None}  # the operator's own counts
    made = ask(desk, boss, "POST", "/admin/accounts", {"name": "alice", "credits": 0})
    for name, package in named.items():
        before = ask(desk, boss, "GET", f"/admin/accounts/{made['id']}")["credits"]
        granted = ask(desk, boss, "POST", f"/admin/accounts/{made['id']}/grant", {"package": name})
        assert granted["credits"] == before + package["credits"]


def test_without_the_setting_there_is_no_such_path(desk: InProcess, boss: str) -> None:
    gateway = desk.running.gateway
    gateway.settings = replace(gateway.settings, admin=False)
    desk.router = Router(routes(gateway, desk.running.endpoints))
    for method, path, *_ in TABLE:
        assert desk.call(method, path.format(account="a", key="k"), key=boss).status == 404


def test_an_account_lives_through_the_api(desk: InProcess, boss: str) -> None:
    made = ask(desk, boss, "POST", "/admin/accounts", {"name": "alice", "credits": 5})
    path = f"/admin/accounts/{made['id']}"
    assert (made["name"], made["credits"]) == ("alice", 5)
    assert ask(desk, boss, "POST", f"{path}/grant", {"credits": 7})["credits"] == 12
    assert ask(desk, boss, "POST", f"{path}/grant", {"package": "starter"})["credits"] == 512
    assert ask(desk, boss, "POST", f"{path}/deduct", {"credits": 12})["credits"] == 500
    assert openai_error(ask(desk, boss, "POST", f"{path}/deduct", {"credits": 501}, 409))
    changed = ask(desk, boss, "PATCH", path, {"name": "bob", "budgets": {"usd/day": 2.5}})
    assert (changed["name"], changed["budgets"]) == ("bob", {"usd/day": 2.5})
    assert changed["spent"][0]["limit"] == 2.5
    assert ask(desk, boss, "GET", "/admin/accounts/bob") == changed
    listed = ask(desk, boss, "GET", "/admin/accounts?limit=1")
    assert listed["has_more"]
    rest = ask(desk, boss, "GET", f"/admin/accounts?after={listed['next']}")
    assert {each["name"] for each in (*listed["data"], *rest["data"])} == {"", "bob"}
    free = ask(desk, boss, "POST", "/admin/accounts", {"credits": "unlimited"})
    assert ask(desk, boss, "POST", f"/admin/accounts/{free['id']}/grant", {"credits": 1}, 409)
    assert ask(desk, boss, "DELETE", path) == {"id": made["id"], "deleted": True}
    ask(desk, boss, "GET", path, status=404)


def test_a_key_lives_through_the_api(desk: InProcess, boss: str) -> None:
    body = {
        "name": "alice",
        "credits": 3,
        "rpm": 2,
        "models": ["kimi-k3"],
        "budgets": {"tokens/month": 10**6},
    }
    made = ask(desk, boss, "POST", "/admin/keys", body)
    secret, path = made.pop("key"), f"/admin/keys/{made['id']}"
    assert (made["limits"]["rpm"], made["models"], made["state"]) == (2, ["kimi-k3"], "active")
    assert desk.chat(secret, {}).status == 200
    assert desk.chat(secret, {"model": "kimi-k2.6"}).status == 403
    (listed,) = ask(desk, boss, "GET", f"/admin/keys?account={made['account']}")["data"]
    assert listed["last_used"] is not None
    shown = ask(desk, boss, "GET", path)
    assert shown["limits_in_force"]["rpm"] == {"limit": 2, "source": "own"}
    assert shown["spent"][0]["spent"] > 0
    changed = ask(desk, boss, "PATCH", path, {"models": [], "rpm": None, "note": "laptop"})
    assert (changed["models"], changed["limits"]["rpm"], changed["note"]) == ([], None, "laptop")
    assert desk.chat(secret, {"model": "kimi-k2.6"}).status == 200
    limited = ask(desk, boss, "PATCH", path, {"limits": {"rpm": 9, "rpd": 90}})
    assert limited["limits"] == {"rpm": 9, "rph": None, "rpd": 90}
    assert ask(desk, boss, "PATCH", path, {"limits": limited["limits"]})["limits"] == limited["limits"]
    assert set(ask(desk, boss, "PATCH", path, {"limits": None})["limits"].values()) == {None}
    assert ask(desk, boss, "POST", f"{path}/suspend")["state"] == "suspended"
    assert desk.chat(secret, {}).status == 401
    assert ask(desk, boss, "POST", f"{path}/resume", {})["state"] == "active"
    rotated = ask(desk, boss, "POST", f"{path}/rotate", {"overlap": "0"})
    assert desk.chat(secret, {}).status == 401
    assert desk.chat(rotated["key"], {}).status == 200
    assert ask(desk, boss, "DELETE", path)["state"] == "revoked"
    ended = desk.chat(rotated["key"], {})
    assert (ended.status, "revoked" in ended.json["error"]["message"]) == (401, True)
    for step in ("suspend", "resume", "rotate"):
        assert "revoked" in str(ask(desk, boss, "POST", f"{path}/{step}", {}, 409))
    assert ask(desk, boss, "GET", path)["state"] == "revoked"
    second = ask(desk, boss, "POST", "/admin/keys", {"account": made["account"], "credits": 4})
    assert second["account"] == made["account"]
    assert desk.run(desk.store.account(made["account"], NOW)).credits == 4


WRONG: tuple[tuple[str, str, object, str], ...] = (
    ("POST", "/admin/keys", {"rpm": 0}, "rpm"),
    ("POST", "/admin/keys", {"rpm": True}, "rpm"),
    ("POST", "/admin/keys", {"limits": {"rpm": 0}}, "limits.rpm"),
    ("POST", "/admin/keys", {"limits": {"day": 1}}, "limits"),
    ("POST", "/admin/keys", {"operator": True}, "operator"),
    ("POST", "/admin/keys", {"models": ["a b"]}, "models[0]"),
    ("POST", "/admin/keys", {"expires": "2001-01-01"}, "expires"),
    ("POST", "/admin/keys", {"budgets": {"eur/day": 1}}, "budgets.eur/day"),
    ("POST", "/admin/keys", {"budgets": {"usd/day": -1}}, "budgets.usd/day"),
    ("POST", "/admin/keys", {"name": "sk-kg-x"}, "name"),
    ("POST", "/admin/keys", {"account": 7}, "account"),
    ("POST", "/admin/accounts", {"credits": -1}, "credits"),
    ("POST", "/admin/accounts", {"nmae": "a"}, "nmae"),
    ("POST", "/admin/accounts/{account}/grant", {}, "credits"),
    ("POST", "/admin/accounts/{account}/grant", {"credits": 1, "expires": "2001-01-01"}, "expires"),
    ("POST", "/admin/accounts/{account}/grant", {"package": "gold"}, "package"),
    ("POST", "/admin/keys/{key}/rotate", {"overlap": "soon"}, "overlap"),
    ("PATCH", "/admin/keys/{key}", {"search": "no"}, "search"),
    ("GET", "/admin/usage?by=week", b"", "by"),
    ("GET", "/admin/requests?limit=0", b"", "limit"),
    ("GET", "/admin/keys?after=nobody", b"", "after"),
)


TERMS_OF_ALL: tuple[tuple[dict[str, Any], str], ...] = (  # and the member that is wrong
    ({"budgets": {"usd/day": 0.000001, "tokens/total": 10**15}}, ""),
    ({"budgets": {"usd/day": 0}}, ""),
    ({"budgets": None}, ""),
    ({"budgets": {"usd/day": 0.0000001}}, "budgets.usd/day"),
    ({"budgets": {"tokens/day": 1.5}}, "budgets.tokens/day"),
    ({"budgets": {"usd/minute": 1}}, "budgets.usd/minute"),
    ({"budgets": {"tokens/minute": 10**15 + 1}}, "budgets.tokens/minute"),
    ({"budgets": []}, "budgets"),
    ({"models": None}, ""),
    ({"models": ["kimi-*", "kimi-*"]}, ""),
    ({"models": [f"m{number}" for number in range(51)]}, "models"),
    ({"models": ["m" * 1_001]}, "models"),
    ({"models": ["a", ""]}, "models[1]"),
    ({"expires": None}, ""),
    ({"expires": "2001-01-01"}, "expires"),
    ({"expires": "soon"}, "expires"),
    ({"name": "acc_0123456789"}, "name"),
    ({"name": "key_0123456789"}, "name"),
    ({"name": "sk-x"}, "name"),
)


@pytest.mark.parametrize(("body", "wrong"), TERMS_OF_ALL)
def test_terms_of_a_key_follow_one_rule_wherever_they_are_given(
    desk: InProcess, boss: str, body: dict[str, Any], wrong: str
) -> None:
    desk.run(desk.store.update_key(keys.digest(boss), lambda old: replace(old, manages=True), NOW))
    answers = [desk.call("POST", path, {"name": "n", **body}, boss) for path in ("/admin/keys", "/user/keys")]
    if wrong:
        assert [answer.json["error"]["param"] for answer in answers] == [wrong, wrong]
    else:
        assert [answer.status for answer in answers] == [200, 200]
        for member in set(body) & {"budgets", "models"}:
            assert answers[0].json[member] == answers[1].json[member]


def test_a_wrong_body_is_named_and_changes_nothing(desk: InProcess, boss: str) -> None:
    user = desk.account(desk.key())
    before = desk.run(desk.store.accounts(NOW))
    for method, path, body, param in WRONG:
        where = path.format(account=user.id, key=user.keys[0].id)
        told_ = openai_error(ask(desk, boss, method, where, body, 400))
        assert told_["param"] == param, (path, body)
        desk.now += 1
    assert desk.run(desk.store.accounts(NOW)) == before
    ask(desk, boss, "GET", "/admin/keys/key_unknown000", status=404)
    ask(desk, boss, "GET", f"/admin/keys/{user.id}", status=404)


def test_usage_of_all_accounts_with_their_names(desk: InProcess, boss: str) -> None:
    made = [ask(desk, boss, "POST", "/admin/keys", {"name": name}) for name in ("alice", "bob")]
    for each in made:
        assert desk.chat(each["key"], {}).status == 200
    rows = ask(desk, boss, "GET", "/admin/usage?by=account")["data"]
    assert {row["account_name"]: row["requests"] for row in rows} == {"alice": 1, "bob": 1}
    (mine,) = ask(desk, boss, "GET", "/admin/usage?by=key&account=alice")["data"]
    assert (mine["key"], mine["key_name"]) == (made[0]["id"], "alice")


def test_the_pool_names_tokens_by_their_hashes_only(desk: InProcess, boss: str) -> None:
    desk.client.answer = lambda sent: told(error("exceeded_current_quota_error", "no credit"), 403)
    desk.chat(desk.key(), {})
    answer = desk.call("GET", "/admin/pool", key=boss)
    assert b"sk-upstream" not in answer.body
    (token,) = answer.json["data"][0]["tokens"]
    assert (token["state"], token["outages"][0]["cause"]) == ("out", "quota")
    assert token["outages"][0]["next_try"]


def test_balances_are_asked_for_when_the_operator_wants_them(desk: InProcess, boss: str) -> None:
    (token,) = ask(desk, boss, "GET", "/admin/pool")["data"][0]["tokens"]
    balance = {"available_balance": 12.5, "voucher_balance": 2.5, "cash_balance": 10.0}
    assert token["balance"] is None
    asked: list[str] = []

    def platform(sent: Any) -> Any:
        asked.append(sent.path)
        return told({"code": 0, "data": balance, "scode": "0x0", "status": True})

    desk.client.answer = platform
    (token,) = ask(desk, boss, "GET", "/admin/pool?balance=now")["data"][0]["tokens"]
    assert (token["balance"], len(asked)) == (balance, 1)
    (token,) = ask(desk, boss, "GET", "/admin/pool")["data"][0]["tokens"]
    assert (token["balance"], len(asked)) == (balance, 1)


def test_problems_are_those_that_the_gateway_knows_with_a_way_to_mend_them(
    desk: InProcess, boss: str
) -> None:
    assert ask(desk, boss, "GET", "/admin/problems")["data"] == []
    desk.client.answer = lambda sent: told(error("exceeded_current_quota_error", "no credit"), 403)
    desk.chat(desk.key(), {})
    answer = desk.call("GET", "/admin/problems", key=boss)
    assert b"sk-upstream" not in answer.body
    whole, token = answer.json["data"]
    assert (whole["name"], whole["status"]) == ("moonshot", "FAIL")
    assert (token["name"], token["status"], token["fix"]) == ("token", "warn", MEND["quota"])
    assert "quota" in token["detail"]


def test_recent_requests_are_filtered_and_have_no_bodies(desk: InProcess, boss: str) -> None:
    key = desk.key()
    desk.chat(key, {"messages": [{"role": "user", "content": "my secret words"}]})
    desk.chat(key, {"model": "gpt-4"})
    mine = desk.account(key).keys[0].id
    answer = desk.call("GET", f"/admin/requests?key={mine}", key=boss)
    assert b"secret words" not in answer.body
    assert key.encode() not in answer.body
    failed, good = answer.json["data"]
    assert (good["status"], good["model"], good["credits"]) == (200, "kimi-k3", 1)
    assert (failed["status"], failed["cause"]) == (404, "model_not_found")
    only = ask(desk, boss, "GET", f"/admin/requests?key={mine}&status=404&limit=1")
    assert [each["status"] for each in only["data"]] == [404]
