"""Keys that a key makes for itself: never above their maker, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget, Grant, Limits, NewKey
from support.error_shape import openai_error
from support.inprocess import Answered, InProcess

KEYS = "/user/keys"


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def change(desk: InProcess, key: str, **wanted: Any) -> None:
    desk.run(desk.store.update_key(keys.digest(key), lambda old: replace(old, **wanted), int(desk.now)))


def manager(desk: InProcess, credits: int = 100, **terms: Any) -> str:
    key = desk.key(credits)
    change(desk, key, manages=True, **terms)
    return key


def make(desk: InProcess, maker: str, **body: Any) -> Any:
    answer = desk.call("POST", KEYS, body, maker)
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return answer.json


def code(answer: Answered) -> tuple[int, str]:
    return answer.status, openai_error(answer.json)["code"]


def test_the_right_to_manage_keys_is_off_by_default(desk: InProcess) -> None:
    key = desk.key()
    for method, path in (("POST", KEYS), ("PATCH", f"{KEYS}/key_1"), ("DELETE", f"{KEYS}/key_1")):
        answer = desk.call(method, path, {"name": "x"} if method != "DELETE" else b"", key)
        assert code(answer) == (403, "permission_denied")
    listed = desk.call("GET", KEYS, b"", key).json
    (own,) = listed["data"]
    assert (own["manages"], own["made_by"]) == (False, None)
    assert listed["invite_code"] == "inv_" + desk.account(key).id.removeprefix("acc_")


def test_a_made_key_works_is_changed_and_deleted(desk: InProcess) -> None:
    maker = manager(desk)
    made = make(desk, maker, name="phone", limits={"rpm": 5}, models=["kimi-k3"], budgets={"usd/day": 1.5})
    assert keys.well_formed(made["key"])
    assert (made["name"], made["limits"]["rpm"], made["models"]) == ("phone", 5, ["kimi-k3"])
    assert made["budgets"] == {"usd/day": 1.5}
    assert desk.chat(made["key"], {}).status == 200
    assert code(desk.chat(made["key"], {"model": "kimi-k2.6"})) == (403, "permission_denied")
    listed = desk.call("GET", KEYS, b"", maker).json["data"]
    assert [key["name"] for key in listed] == ["", "phone"]
    assert not any("key" in each for each in listed)
    one = f"{KEYS}/{made['id']}"
    changed = desk.call("PATCH", one, {"name": "pad", "limits": {"rpm": 7}, "models": None}, maker).json
    assert (changed["name"], changed["limits"]["rpm"], changed["models"]) == ("pad", 7, [])
    assert changed["budgets"] == {"usd/day": 1.5}
    assert desk.chat(made["key"], {"model": "kimi-k2.6"}).status == 200
    assert desk.call("DELETE", one, b"", maker).json == {"id": made["id"], "object": "key", "deleted": True}
    assert desk.chat(made["key"], {}).status == 401
    assert code(desk.call("DELETE", one, b"", maker)) == (404, "not_found")
    assert desk.account(maker).consumed == 2


CAPS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "limits": ({"limits": Limits(5, 50, 500)}, {"limits": {"rpm": 6, "rph": 60, "rpd": 600}},
               {"rpm": 5, "rph": 50, "rpd": 500}),
    "in_flight": ({"in_flight": 2}, {"in_flight": 3}, 2),
    "tokens": ({"tokens": 500}, {"tokens": 501}, 500),
    "budgets": ({"budgets": (Budget("usd", "day", 10**6),)}, {"budgets": {"usd/day": 2}}, {"usd/day": 1.0}),
    "search": ({"search": False}, {"search": True}, False),
    "files": ({"files": False}, {"files": True}, False),
    "expires": ({"expires": 1_900_000_000}, {"expires": None}, "2030-03-17T17:46:40Z"),
}  # fmt: skip


@pytest.mark.parametrize("cap", CAPS)
def test_no_key_gets_more_than_its_maker_has(desk: InProcess, cap: str) -> None:
    terms, wanted, most = CAPS[cap]
    maker = manager(desk, **terms)
    assert make(desk, maker, **wanted)[cap] == most
    plain = make(desk, maker)
    assert desk.call("PATCH", f"{KEYS}/{plain['id']}", wanted, maker).json[cap] == most


def test_no_key_gets_a_model_that_its_maker_has_not(desk: InProcess) -> None:
    maker = manager(desk, models=("kimi-k2*",))
    for models in (["kimi-k3"], ["*"], ["kimi-k2.6", "kimi-k*"]):
        answer = desk.call("POST", KEYS, {"models": models}, maker)
        assert code(answer) == (400, "invalid_request")
    for made in (make(desk, maker), make(desk, maker, models=None), make(desk, maker, models=["kimi-k2.6"])):
        assert code(desk.chat(made["key"], {"model": "kimi-k3"})) == (403, "permission_denied")
        assert desk.chat(made["key"], {"model": "kimi-k2.6"}).status == 200


@pytest.mark.parametrize(
    "member", ["manages", "suspended", "see_balance", "made_by", "account", "id", "note", "key"]
)
def test_what_a_key_may_not_give_is_no_member(desk: InProcess, member: str) -> None:
    maker = manager(desk)
    made = make(desk, maker)
    for method, path in (("POST", KEYS), ("PATCH", f"{KEYS}/{made['id']}")):
        answer = desk.call(method, path, {member: True}, maker)
        assert code(answer) == (400, "invalid_request")
        assert member in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"limits": {"rpm": 0}},
        {"limits": {"rps": 1}},
        {"limits": 5},
        {"in_flight": -1},
        {"tokens": "1"},
        {"budgets": {"usd/minute": 1}},
        {"budgets": {"eur/day": 1}},
        {"budgets": {"usd/day": 0.0000001}},
        {"budgets": {"tokens/day": 1.5}},
        {"budgets": {"usd/day": True}},
        {"models": "kimi-k3"},
        {"models": [""]},
        {"models": ["a b"]},
        {"models": ["x"] * 51},
        {"search": None},
        {"expires": "2001-01-01"},
        {"expires": 5},
        {"name": "sk-kg-x"},
        {"name": "acc_0123456789"},
        {"name": "x" * 101},
    ],
)
def test_a_wrong_member_is_named(desk: InProcess, body: dict[str, Any]) -> None:
    answer = desk.call("POST", KEYS, body, manager(desk))
    assert code(answer) == (400, "invalid_request")
    assert next(iter(body)) in answer.json["error"]["message"]


def test_a_key_cannot_change_itself_and_a_made_key_manages_nothing(desk: InProcess) -> None:
    maker = manager(desk, limits=Limits(minute=9))
    own = desk.call("GET", KEYS, b"", maker).json["data"][0]["id"]
    assert code(desk.call("PATCH", f"{KEYS}/{own}", {"limits": {"rpm": None}}, maker)) == (
        403,
        "permission_denied",
    )
    assert code(desk.call("DELETE", f"{KEYS}/{own}", b"", maker)) == (403, "permission_denied")
    made = make(desk, maker)
    for method, path in (("POST", KEYS), ("PATCH", f"{KEYS}/{made['id']}"), ("PATCH", f"{KEYS}/{own}")):
        answer = desk.call(method, path, {"limits": {"rpm": 10}}, made["key"])
        assert code(answer) == (403, "permission_denied")
    assert [key["id"] for key in desk.call("GET", KEYS, b"", made["key"]).json["data"]] == [made["id"]]


def test_keys_of_the_same_account_that_others_made_are_out_of_reach(desk: InProcess) -> None:
    maker = manager(desk)
    sibling = desk.run(desk.store.create_key(NewKey("sibling", desk.account(maker).id), int(desk.now)))
    assert sibling.id not in [key["id"] for key in desk.call("GET", KEYS, b"", maker).json["data"]]
    for method in ("PATCH", "DELETE"):
        answer = desk.call(method, f"{KEYS}/{sibling.id}", {"name": "x"} if method == "PATCH" else b"", maker)
        assert code(answer) == (404, "not_found")


def test_a_suspended_maker_stops_its_keys_and_they_cannot_resume_it(desk: InProcess) -> None:
    maker = manager(desk)
    made = make(desk, maker)
    change(desk, maker, suspended=True)
    assert desk.chat(made["key"], {}).status == 401
    for key in (maker, made["key"]):
        assert desk.call("GET", KEYS, b"", key).status == 401
        assert desk.call("PATCH", f"{KEYS}/{made['id']}", {"name": "x"}, key).status == 401
    change(desk, maker, suspended=False)
    assert desk.chat(made["key"], {}).status == 200


def test_a_key_that_the_operator_suspended_is_not_resumed_by_its_maker(desk: InProcess) -> None:
    maker = manager(desk)
    made = make(desk, maker)
    change(desk, made["key"], suspended=True)
    answer = desk.call("PATCH", f"{KEYS}/{made['id']}", {"name": "x", "limits": {"rpm": 3}}, maker)
    assert answer.json["suspended"] is True
    assert desk.chat(made["key"], {}).status == 401


def test_many_keys_share_one_window_and_one_bucket_of_free_calls(desk: InProcess) -> None:
    maker = manager(desk, limits=Limits(minute=4))
    made = [make(desk, maker)["key"] for _ in range(3)]
    statuses = [desk.chat(key, {}).status for key in [maker, *made, *made]]
    assert statuses == [200] * 4 + [429] * 3
    desk.now += 60
    free = [desk.call("GET", "/v1/models", b"", key).status for _ in range(30) for key in made]
    assert free == [200] * 60 + [429] * 30


def test_an_account_has_at_most_so_many_keys(desk: InProcess) -> None:
    maker = manager(desk)
    made = [make(desk, maker) for _ in range(19)]
    answer = desk.call("POST", KEYS, {}, maker)
    assert code(answer) == (409, "conflict")
    assert "20 keys" in answer.json["error"]["message"]
    desk.call("DELETE", f"{KEYS}/{made[0]['id']}", b"", maker)
    make(desk, maker)


def test_an_account_makes_at_most_a_hundred_keys_a_day(desk: InProcess) -> None:
    maker = manager(desk)
    for _ in range(100):
        made = make(desk, maker)
        desk.call("DELETE", f"{KEYS}/{made['id']}", b"", maker)
        desk.now += 1
    assert code(desk.call("POST", KEYS, {}, maker)) == (429, "rate_limit_exceeded")
    desk.now += 86_400
    make(desk, maker)


def test_account_b_reaches_no_key_of_account_a(desk: InProcess) -> None:
    alice, bob = manager(desk), manager(desk)
    made = make(desk, alice, name="phone")
    for method in ("PATCH", "DELETE"):
        answer = desk.call(method, f"{KEYS}/{made['id']}", {"name": "x"} if method == "PATCH" else b"", bob)
        assert code(answer) == (404, "not_found")
    assert made["id"] not in str(desk.call("GET", KEYS, b"", bob).json)
    assert desk.chat(made["key"], {}).status == 200
    desk.run(desk.store.grant(desk.account(bob).id, Grant(1), int(desk.now)))
    assert desk.account(alice).credits == 99
