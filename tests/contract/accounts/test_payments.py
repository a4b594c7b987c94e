"""Payments and refunds that a payment service reports: signed, booked once, and never below zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway import observe, settings
from kimi_gateway.accounts.packages import months_later
from kimi_gateway.accounts.values import NEVER, Grant
from support.error_shape import openai_error
from support.inprocess import Answered, InProcess
from support.signing import HOOK, SECRET, report, signature


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess(payment_secret=(SECRET, "another-secret-of-ours"), packages=(("trial", 70, 2),)) as desk:
        yield desk


def paid(account: object, **more: Any) -> dict[str, Any]:
    return {"id": "evt_1", "type": "payment", "account": account, "package": "standard"} | more


def code(answer: Answered) -> tuple[int, str]:
    return answer.status, openai_error(answer.json)["code"]


@pytest.mark.parametrize(
    ("bought", "credits", "months"),
    [
        ({"package": "starter"}, 500, None),
        ({"package": "standard"}, 5_000, 1),
        ({"package": "premium"}, 20_000, 1),
        ({"package": "trial"}, 70, 2),
        ({"credits": 123}, 123, None),
        ({"credits": 123, "months": 6}, 123, 6),
    ],
)
def test_a_payment_adds_what_was_bought_once(
    desk: InProcess, bought: dict[str, Any], credits: int, months: int | None
) -> None:
    key = desk.key(10)
    account = desk.account(key)
    body = {"id": "evt_1", "type": "payment", "account": account.id, **bought}
    answers = [report(desk, body) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.json["booked"] for answer in answers] == [True, False, False]
    assert answers[0].json == {
        "object": "payment", "id": "evt_1", "account": account.id, "credits": credits, "booked": True,
        "credits_remaining": credits + 10,
    }  # fmt: skip
    ends = NEVER if months is None else months_later(int(desk.now), months)
    grants = desk.account(key).grants
    assert Grant(credits + 10 if months is None else credits, ends) in grants
    assert report(desk, body | {"id": "evt_2"}).json["booked"] is True
    assert desk.account(key).credits == 10 + 2 * credits


def test_an_old_report_is_not_booked_again_with_a_fresh_signature(desk: InProcess) -> None:
    key = desk.key(0)
    body = paid(desk.account(key).id)
    report(desk, body)
    desk.now += 3 * 10**6
    assert report(desk, body).json["booked"] is False
    assert desk.account(key).expired == 5_000


def test_a_refund_takes_once_what_is_left_of_a_payment(desk: InProcess) -> None:
    key = desk.key(0)
    account = desk.account(key).id
    refund = {"id": "evt_9", "type": "refund", "account": account, "payment": "evt_1"}
    assert code(report(desk, refund)) == (409, "conflict")
    report(desk, {"id": "evt_1", "type": "payment", "account": account, "credits": 10})
    assert desk.chat(key, {}).status == 200
    answers = [report(desk, refund | {"id": f"evt_{number}"}) for number in range(9, 12)]
    assert [(answer.status, answer.json["credits"]) for answer in answers] == [(200, -9)] * 3
    after = desk.account(key)
    assert (after.credits, after.consumed) == (0, 1)
    report(desk, {"id": "evt_3", "type": "payment", "account": account, "credits": 5})
    assert report(desk, refund).json["credits_remaining"] == 5
    assert desk.account(key).credits == 5


FORGED: dict[str, Any] = {
    "none": lambda raw, now: "",
    "another secret": lambda raw, now: signature(raw, now, "an-attackers-secret"),
    "another body": lambda raw, now: signature(raw + b" ", now),
    "another time": lambda raw, now: signature(raw, now).replace(f"t={now}", f"t={now + 1}"),
    "too old": lambda raw, now: signature(raw, now - 301),
    "too new": lambda raw, now: signature(raw, now + 301),
    "no time": lambda raw, now: signature(raw, now).partition(",")[2],
    "two times": lambda raw, now: f"t={now + 1},{signature(raw, now)}",
    "no hex": lambda raw, now: f"t={now},v1=",
    "not ASCII": lambda raw, now: f"t={now},v1=ü",
    "a huge number": lambda raw, now: f"t={'9' * 5_000},v1=aa",
    "many": lambda raw, now: f"t={now}," + ",".join(f"v1={n:064x}" for n in range(50)),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_not_signed_is_refused(desk: InProcess, forged: str) -> None:
    key = desk.key(1)
    raw = json.dumps(paid(desk.account(key).id)).encode()
    answer = desk.call("POST", HOOK, raw, None, ("x-signature", FORGED[forged](raw, int(desk.now))))
    assert code(answer) == (403, "permission_denied")
    assert desk.account(key).credits == 1


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_clock_that_differs_a_little_is_accepted(desk: InProcess, seconds: int) -> None:
    account = desk.account(desk.key(1)).id
    assert report(desk, paid(account), at=int(desk.now) + seconds).status == 200
    assert report(desk, paid(account, id="evt_2"), secret="another-secret-of-ours").status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"id": "x" * 201},
        {"id": 5},
        {"type": "chargeback"},
        {"account": None},
        {"package": "gold"},
        {"package": "standard", "credits": 5},
        {"package": None},
        {"type": "refund"},
        {"type": "refund", "payment": ""},
    ],
)
def test_a_wrong_report_is_named(desk: InProcess, wrong: dict[str, Any]) -> None:
    key = desk.key(1)
    answer = report(desk, paid(desk.account(key).id) | wrong)
    assert code(answer) == (400, "invalid_request")
    assert desk.account(key).credits == 1


@pytest.mark.parametrize("credits", [0, -5, 1.5, True, "9", 10**10])
def test_credits_are_a_sane_number(desk: InProcess, credits: object) -> None:
    key = desk.key(1)
    body = {"id": "evt_1", "type": "payment", "account": desk.account(key).id, "credits": credits}
    assert code(report(desk, body)) == (400, "invalid_request")
    assert desk.account(key).credits == 1


def test_an_account_is_named_by_its_id_alone(desk: InProcess) -> None:
    key = desk.key(1)
    of_key = desk.account(key).keys[0].id
    for name in ("acc_0000000000", of_key, ""):
        assert report(desk, paid(name)).status == 404
    free = desk.account(desk.key(None)).id
    assert code(report(desk, paid(free))) == (409, "conflict")


def test_without_a_secret_there_is_no_such_path() -> None:
    with InProcess() as desk:
        answer = report(desk, paid("acc_0000000000"))
        assert code(answer) == (404, "not_found")


def test_the_secret_is_in_no_representation_and_is_redacted() -> None:
    values = settings.read({"KIMI_GATEWAY_PAYMENT_SECRET": f"{SECRET}, second-secret-of-16"})
    assert values.payment_secret == (SECRET, "second-secret-of-16")
    assert SECRET not in repr(values)
    with InProcess(payment_secret=(SECRET,)):
        assert SECRET not in observe.redact(f"it is {SECRET}")
