"""Accounts that users open themselves: off, by invitation or open, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.accounts import keys
from support.error_shape import openai_error
from support.inprocess import Answered, InProcess
from support.signing import SECRET, report

PATH = "/user/register"


def code(answer: Answered) -> tuple[int, str]:
    return answer.status, openai_error(answer.json)["code"]


def invitation(desk: InProcess, key: str) -> str:
    return "inv_" + desk.account(key).id.removeprefix("acc_")


def register(desk: InProcess, number: int = 1, *more: tuple[str, str], **body: Any) -> Answered:
    return desk.call("POST", PATH, body, None, *more, client=f"192.0.2.{number}")


def test_nobody_registers_by_default() -> None:
    with InProcess() as desk:
        assert code(register(desk)) == (404, "not_found")
        assert desk.run(desk.store.accounts(int(desk.now))) == []


def test_a_new_account_has_a_key_its_credits_and_an_invitation() -> None:
    with InProcess(register="open", signup_credits=30) as desk:
        answer = register(desk, name="laptop")
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        made = answer.json
        account = desk.account(made["key"])
        assert keys.well_formed(made["key"])
        assert (made["account"], made["credits"], made["name"]) == (account.id, 30, "laptop")
        assert (account.name, account.invited_by) == ("", "")
        (key,) = account.keys
        assert (key.id, key.name, key.manages, key.see_balance) == (made["id"], "laptop", False, False)
        assert desk.chat(made["key"], {}).status == 200
        guest = register(desk, 2, invite_code=made["invite_code"]).json
        assert desk.account(guest["key"]).invited_by == account.id
        assert desk.account(made["key"]).credits == 29 + 50


def test_an_invitation_is_needed_and_rewarded_once_for_each_guest() -> None:
    with InProcess(register="invite", payment_secret=(SECRET,)) as desk:
        host = desk.key(0)
        for body in ({}, {"invite_code": ""}, {"invite_code": None}):
            assert code(register(desk, **body)) == (400, "invalid_request")
        for wrong in ("inv_0000000000", desk.account(host).id, "inv_", "inv_" + "x" * 100, "acc_x"):
            assert code(register(desk, 9, invite_code=wrong)) == (400, "invalid_request")
        assert desk.account(host).credits == 0
        guests = [register(desk, n, invite_code=invitation(desk, host)).json for n in range(2, 4)]
        assert desk.account(host).credits == 100
        for number, guest in enumerate(guests):
            for event in range(3):
                body = {
                    "id": f"evt_{event}",
                    "type": "payment",
                    "account": guest["account"],
                    "package": "starter",
                }
                assert report(desk, body).status == 200
                assert desk.account(host).credits == 100 + 500 * (number + 1)
        assert {desk.account(guest["key"]).credits for guest in guests} == {1_600}


def test_no_account_invites_itself() -> None:
    with InProcess(register="open") as desk:
        host = desk.key(5)
        mine = ("authorization", f"Bearer {host}")
        assert code(register(desk, 1, mine, invite_code=invitation(desk, host))) == (400, "invalid_request")
        assert desk.account(host).credits == 5
        assert register(desk, 2, mine).status == 200


def test_an_unlimited_host_gets_nothing_and_a_deleted_one_spoils_nothing() -> None:
    with InProcess(register="invite", payment_secret=(SECRET,)) as desk:
        free, host = desk.key(None), desk.key(0)
        assert register(desk, 1, invite_code=invitation(desk, free)).status == 200
        guest = register(desk, 2, invite_code=invitation(desk, host)).json
        desk.run(desk.store.delete_account(desk.account(host).id))
        body = {"id": "evt_1", "type": "payment", "account": guest["account"], "package": "starter"}
        assert report(desk, body).json["credits_remaining"] == 600


def test_an_address_opens_few_accounts_a_day_and_all_together_a_bounded_number() -> None:
    with InProcess(register="open", register_daily=5) as desk:
        assert [register(desk).status for _ in range(4)] == [200, 200, 200, 429]
        assert [register(desk, number).status for number in range(2, 5)] == [200, 200, 429]
        desk.now += 86_400
        assert [register(desk, number).status for number in range(1, 3)] == [200, 200]
        assert len(desk.run(desk.store.accounts(int(desk.now)))) == 7


def test_many_tries_of_one_address_ask_the_store_for_little() -> None:
    with InProcess(register="invite") as desk:
        tries = [register(desk, invite_code="inv_0000000000") for _ in range(30)]
        assert [answer.status for answer in tries] == [400] * 10 + [429] * 20
        assert "retry-after" in tries[-1].headers
        assert register(desk, 2, invite_code="inv_0000000000").status == 400


@pytest.mark.parametrize(
    "body",
    [
        {"name": 5},
        {"name": "x" * 101},
        {"name": "sk-kg-0"},
        {"name": "acc_0123456789"},
        {"name": "a\nb"},
        {"invite_code": 7},
    ],
)
def test_a_wrong_body_opens_nothing(body: dict[str, Any]) -> None:
    with InProcess(register="open") as desk:
        assert code(register(desk, **body)) == (400, "invalid_request")
        assert desk.run(desk.store.accounts(int(desk.now))) == []


def test_pages_of_other_origins_register_nobody() -> None:
    with InProcess(register="open") as desk:
        preflight = desk.call("OPTIONS", PATH, b"", None, ("origin", "https://evil.example"))
        assert preflight.status == 403
        assert "access-control-allow-origin" not in register(desk).headers
        form = desk.call("POST", PATH, b"name=x", None, ("content-type", "application/x-www-form-urlencoded"))
        assert form.status == 415
