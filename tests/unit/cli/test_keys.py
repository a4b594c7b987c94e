"""The life of a key on the command line: update, suspend, rotate, show, and names instead of ids."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.accounts import keys
from support.command import Cli, fault


def test_an_update_changes_what_is_given_and_nothing_else(ask: Any) -> None:
    made = ask("keys", "create", "--rpm", 5, "--rpd", 50, "--note", "first", "--models", "kimi-k3,my-*")
    before = ask("keys", "show", made["id"])
    assert before["limits"] == {"rpm": 5, "rph": None, "rpd": 50}
    assert (before["note"], before["models"]) == ("first", ["kimi-k3", "my-*"])
    changed = ask(
        "keys", "update", made["id"], "--rpm", 7, "--rpd", "none", "--name", "desk", "--see-balance"
    )
    assert changed["limits"] == {"rpm": 7, "rph": None, "rpd": None}
    same = ("account", "note", "models", "expires", "created", "suspended", "revoked")
    assert {name: changed[name] for name in same} == {name: before[name] for name in same}
    assert (changed["name"], changed["see_balance"]) == ("desk", True)
    cleared = ask("keys", "update", "desk", "--models", "all", "--note", "", "--no-see-balance")
    assert (cleared["models"], cleared["note"], cleared["see_balance"]) == ([], "", False)
    dated = ask("keys", "update", "desk", "--expires", "2100-01-31")
    assert dated["expires"] == "2100-01-31T00:00:00Z"
    assert ask("keys", "update", "desk", "--expires", "never")["expires"] is None


def test_the_rights_of_a_key_are_switched(ask: Any) -> None:
    rights = ("search", "files", "manages")
    made = ask("keys", "create", "--no-search", "--no-files", "--manage", "--in-flight", 3, "--tokens", 800)
    shown = ask("keys", "show", made["id"])
    assert [shown[name] for name in (*rights, "in_flight", "tokens")] == [False, False, True, 3, 800]
    words = ("--search", "--files", "--no-manage", "--in-flight", "none", "--tokens", "none")
    changed = ask("keys", "update", made["id"], *words)
    assert [changed[name] for name in (*rights, "in_flight", "tokens")] == [True, True, False, None, None]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--in-flight", "0"),
        ("--tokens", "some"),
        ("--rpm", "0"),
        ("--rpm", "many"),
        ("--models", " , "),
        ("--expires", "2001-01-01"),
        ("--expires", "soon"),
        ("--note", "x" * 501),
        ("--name", "sk-secret"),
    ],
)
def test_an_update_that_means_nothing_is_refused(ask: Any, cli: Cli, words: tuple[str, ...]) -> None:
    made = ask("keys", "create")
    assert fault(cli("keys", "update", made["id"], *words, "--json")) == (2, "usage")


def test_a_key_is_suspended_and_resumed(ask: Any, cli: Cli) -> None:
    made = ask("keys", "create", "--name", "alice")
    assert ask("keys", "suspend", made["key"])["suspended"] is True
    assert "suspended" in cli("keys", "list").stdout
    assert ask("keys", "resume", "alice")["suspended"] is False


def test_a_rotated_key_keeps_its_id_and_both_secrets_work(ask: Any, cli: Cli) -> None:
    made = ask("keys", "create", "--name", "alice", "--rpm", 3)
    rotated = ask("keys", "rotate", "alice", "--overlap", "2h")
    assert list(rotated) == ["key", "id", "account", "old_key_ends"]
    assert keys.well_formed(rotated["key"])
    assert rotated["key"] != made["key"]
    for secret in (rotated["key"], made["key"]):
        shown = ask("keys", "show", secret)
        assert (shown["id"], shown["limits"]["rpm"]) == (made["id"], 3)
    assert "old secret" in cli("keys", "show", "alice").stdout
    assert fault(cli("keys", "rotate", "alice", "--overlap", "soon", "--json")) == (2, "usage")
    assert ask("keys", "rotate", "alice", "--overlap", "0")["id"] == made["id"]
    assert "old secret" not in cli("keys", "show", "alice").stdout


def test_a_revoked_key_is_neither_rotated_nor_resumed(ask: Any, cli: Cli) -> None:
    made = ask("keys", "create")
    ask("keys", "revoke", made["id"])
    for step in ("rotate", "resume", "suspend"):
        assert fault(cli("keys", step, made["id"], "--json")) == (1, "revoked")
        assert "revoked for good" in cli("keys", step, made["id"]).stderr
    assert "old secret" not in cli("keys", "show", made["id"]).stdout


def test_show_names_the_source_of_each_limit(ask: Any) -> None:
    made = ask("keys", "create", "--rpm", 5, "--credits", 150)
    assert ask("keys", "show", made["id"])["limits_in_force"] == {
        "rpm": {"limit": 5, "source": "own"},
        "rph": {"limit": 2_000, "source": "tier"},
        "rpd": {"limit": 20_000, "source": "tier"},
        "tpm": {"limit": None, "source": "none"},
        "tokens": {"limit": None, "source": "model"},
        "in_flight": {"limit": None, "source": "none"},
    }
    ask("keys", "update", made["id"], "--tpm", 900, "--tokens", 500, "--in-flight", 2)
    shown = ask("keys", "show", made["id"])["limits_in_force"]
    assert {name: shown[name]["limit"] for name in ("tpm", "tokens", "in_flight")} == {
        "tpm": 900, "tokens": 500, "in_flight": 2,
    }  # fmt: skip
    assert {shown[name]["source"] for name in ("tpm", "tokens", "in_flight")} == {"own"}
    free = ask("keys", "create", "--credits", "unlimited")
    assert ask("keys", "show", free["id"])["limits_in_force"]["rpm"] == {
        "limit": None,
        "source": "unlimited account",
    }


def test_a_name_stands_for_an_id_unless_two_keys_have_it(ask: Any, cli: Cli) -> None:
    one = ask("keys", "create", "--name", "alice")
    two = ask("keys", "create", "--account", "alice", "--name", "laptop")
    assert ask("accounts", "show", "laptop")["id"] == one["account"]
    assert ask("keys", "show", "laptop")["id"] == two["id"]
    assert ask("keys", "revoke", "laptop")["id"] == two["id"]
    assert fault(cli("keys", "show", "laptop", "--json")) == (3, "not_found")
    twin = cli("keys", "create", "--account", "alice", "--name", "alice", "--json")
    assert "already" in twin.stdout
    assert fault(cli("keys", "suspend", "alice", "--json")) == (3, "not_found")
    assert fault(cli("keys", "suspend", one["account"], "--json")) == (3, "not_found")
    assert "already" in cli("keys", "update", one["id"], "--name", "alice").stderr


def test_an_account_is_renamed_and_deleted(ask: Any, cli: Cli) -> None:
    made = ask("keys", "create", "--name", "alice", "--credits", 7)
    ask("keys", "create", "--name", "bob")
    assert ask("accounts", "rename", "alice", "alicia")["name"] == "alicia"
    assert ask("accounts", "show", "alicia")["credits"] == 7
    assert "already" in cli("accounts", "rename", "alicia", "bob").stderr
    assert fault(cli("accounts", "delete", made["account"], "--json")) == (2, "usage")
    assert cli("accounts", "delete", made["account"], typed="n\n").exit_code == 1
    assert ask("accounts", "show", made["account"])["name"] == "bob"
    assert ask("accounts", "delete", made["account"], "--yes") == {"id": made["account"], "deleted": True}
    assert fault(cli("accounts", "show", made["account"], "--json")) == (3, "not_found")
    assert fault(cli("keys", "show", made["key"], "--json")) == (3, "not_found")


def test_budgets_are_added_changed_and_taken_away(ask: Any, cli: Cli) -> None:
    made = ask(
        "keys",
        "create",
        "--name",
        "alice",
        "--budget",
        "usd/day=5",
        "--budget",
        "tokens/total=9000",
        "--tpm",
        100,
    )
    assert ask("keys", "show", "alice")["budgets"] == {
        "usd/day": 5.0,
        "tokens/total": 9_000,
        "tokens/minute": 100,
    }
    changed = ask("keys", "update", "alice", "--budget", "usd/day=0.000001", "--budget", "tokens/total=none")
    assert changed["budgets"] == {"usd/day": 0.000001, "tokens/minute": 100}
    assert ask("keys", "update", "alice", "--rpm", 9)["budgets"] == changed["budgets"]
    assert ask("keys", "update", "alice", "--budget", "none")["budgets"] == {"tokens/minute": 100}
    assert ask("keys", "update", "alice", "--tpm", "none")["budgets"] == {}
    held = ask("accounts", "update", "alice", "--budget", "usd/month=100", "--name", "team")
    assert (held["name"], held["budgets"]) == ("team", {"usd/month": 100.0})
    (spent,) = ask("keys", "show", made["id"])["spent"]
    assert (spent["key"], spent["budget"], spent["limit"], spent["spent"]) == (None, "usd/month", 100.0, 0.0)
    assert "usd/month" in cli("accounts", "show", "team").stdout
    for wrong in (
        "usd/day",
        "usd/day=five",
        "eur/day=5",
        "usd/year=5",
        "usd/minute=5",
        "usd/day=0.0000001",
        "tokens/day=1.5",
        "usd/day=-1",
        "usd/day=inf",
    ):
        assert fault(cli("keys", "update", "alice", "--budget", wrong, "--json")) == (2, "usage"), wrong


def test_models_that_nobody_has_are_warned_of(cli: Cli, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ask("keys", "create", "--name", "a", "--models", "kimi-k33,kimi-k2.6")
    assert made["warning"] == "No model or alias 'kimi-k33' is known; did you mean 'kimi-k3'?"
    result = cli("keys", "update", made["id"], "--models", "kimi-k3,nothing-at-all")
    assert result.exit_code == 0
    assert "Warning: No model or alias 'nothing-at-all' is known." in result.stderr
    monkeypatch.setenv("KIMI_GATEWAY_ALIASES", "house=kimi-k3")
    for good in ("kimi-k3,house", "kimi-*", "kimi-search", "qwen/qwen3.8-max", "all"):
        assert "Warning" not in cli("keys", "update", made["id"], "--models", good).stderr
