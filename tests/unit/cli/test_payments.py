"""Payments on the command line, and who invited whom."""

from __future__ import annotations

from typing import Any

import pytest

from support.command import Cli, fault


def test_a_payment_is_booked_once_and_refunded_once(ask: Any) -> None:
    made = ask("keys", "create", "--name", "alice", "--credits", 10)
    first = ask("accounts", "payment", "alice", "--package", "standard", "--id", "inv-1")
    assert first == {
        "id": "inv-1", "account": made["account"], "booked": True, "credits": 5_000, "balance": 5_010,
    }  # fmt: skip
    again = ask("accounts", "payment", made["key"], "--package", "standard", "--id", "inv-1")
    assert (again["booked"], again["credits"], again["balance"]) == (False, 0, 5_010)
    for _ in range(2):
        refunded = ask("accounts", "payment", "alice", "--refund", "--id", "inv-1")
        assert (refunded["credits"], refunded["balance"]) == (-5_000, 10)
    custom = ask("accounts", "payment", "alice", "--credits", 7, "--months", 2)
    assert (custom["booked"], custom["balance"]) == (True, 17)
    assert len(custom["id"]) == 16


def test_packages_of_the_operator_are_known(ask: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("keys", "create", "--name", "alice", "--credits", 0)
    assert fault(cli("accounts", "payment", "alice", "--package", "trial", "--json")) == (2, "usage")
    monkeypatch.setenv("KIMI_GATEWAY_PACKAGES", "trial=50/1m")
    assert ask("accounts", "payment", "alice", "--package", "trial")["balance"] == 50
    assert ask("accounts", "grant", "alice", "--package", "trial")["credits"] == 100
    done = cli("accounts", "grant", "alice", "--package", "none", "--json")
    assert fault(done) == (2, "usage")
    assert "premium, standard, starter, trial" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--package", "standard", "--credits", "5"),
        ("--package", "standard", "--months", "5"),
        ("--credits", "0"),
        ("--refund",),
        ("--refund", "--id", "x", "--package", "standard"),
        ("--package", "standard", "--id", ""),
    ],
)
def test_a_payment_that_means_nothing_is_refused(ask: Any, cli: Cli, words: tuple[str, ...]) -> None:
    ask("keys", "create", "--name", "alice")
    assert fault(cli("accounts", "payment", "alice", *words, "--json")) == (2, "usage")


def test_unknown_payments_and_unlimited_accounts_are_refused(ask: Any, cli: Cli) -> None:
    ask("keys", "create", "--name", "alice")
    assert fault(cli("accounts", "payment", "alice", "--refund", "--id", "x", "--json")) == (3, "not_found")
    ask("keys", "create", "--name", "free", "--credits", "unlimited")
    assert fault(cli("accounts", "payment", "free", "--credits", 5, "--json")) == (1, "unlimited")


def test_an_account_shows_its_invitation(ask: Any) -> None:
    made = ask("keys", "create")
    shown = ask("accounts", "show", made["account"])
    assert (shown["invite_code"], shown["invited_by"]) == ("inv_" + made["account"][4:], None)


@pytest.mark.parametrize("name", ["acc_0123456789", "key_0123456789", "sk-kg-1"])
def test_no_name_looks_like_an_id(ask: Any, cli: Cli, name: str) -> None:
    made = ask("keys", "create")
    assert fault(cli("accounts", "rename", made["account"], name, "--json")) == (2, "usage")
    assert fault(cli("keys", "create", "--name", name, "--json")) == (2, "usage")
