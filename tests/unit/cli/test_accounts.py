"""Keys, accounts and usage on the command line: the documents that scripts rely on."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.packages import months_later
from kimi_gateway.accounts.values import Usage
from kimi_gateway.cli.show import utc
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.command import TIME, Cli, fault, mode

KEY_FIELDS = [
    "id", "account", "name", "limits", "in_flight", "tokens", "search", "files", "manages", "made_by",
    "see_balance", "budgets", "models", "expires", "note", "suspended", "revoked", "created",
]  # fmt: skip


def spend(data: Path, secret: str, *models: str) -> None:
    """One settled request for each model, and one failed one."""

    async def run() -> None:
        store, now = SqliteStore(data / STORE_NAME), int(time.time())
        key = await store.find_key(keys.digest(secret))
        assert key is not None
        for number, model in enumerate(models):
            await store.settle(
                await store.admit(f"r{number}", key, 1, now + 60, now), model, Usage(10, 5), now
            )
        await store.release(await store.admit("failed", key, 1, now + 60, now), models[0], True, now)
        await store.close()

    asyncio.run(run())


def test_a_new_key_prints_exactly_four_fields_and_opens_with_the_credits_given(ask: Any) -> None:
    made = ask("keys", "create", "--name", "alice", "--credits", 7)
    assert list(made) == ["key", "id", "account", "credits"]
    assert keys.well_formed(made["key"])
    assert made["credits"] == 7
    assert ask("accounts", "show", "alice")["credits"] == 7


def test_a_new_key_opens_with_the_sign_up_credits(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("keys", "create")["credits"] == 100
    monkeypatch.setenv("KIMI_GATEWAY_SIGNUP_CREDITS", "3")
    assert ask("keys", "create")["credits"] == 3
    assert ask("accounts", "create")["credits"] == 3
    assert ask("keys", "create", "--credits", 0)["credits"] == 0


def test_an_operators_key_says_so(ask: Any) -> None:
    made = ask("keys", "create", "--role", "operator")
    assert ask("keys", "show", made["id"])["role"] == "operator"
    assert "role" not in ask("keys", "update", made["id"], "--role", "user")


def test_an_unlimited_account_says_so_and_takes_no_grant(ask: Any, cli: Cli) -> None:
    made = ask("keys", "create", "--credits", "unlimited")
    assert made["credits"] == "unlimited"
    shown = ask("accounts", "show", made["account"])
    assert (shown["unlimited"], shown["credits"], shown["grants"]) == (True, "unlimited", [])
    assert ask("keys", "create", "--account", made["account"])["credits"] == "unlimited"
    assert fault(cli("accounts", "grant", made["account"], 5, "--json")) == (1, "unlimited")
    assert fault(cli("keys", "create", "--account", made["account"], "--credits", 5, "--json"))[0] == 1
    assert len(ask("keys", "list")["keys"]) == 2


def test_credits_with_an_account_are_a_grant_to_it(ask: Any, cli: Cli) -> None:
    first = ask("keys", "create", "--credits", 10)
    assert ask("keys", "create", "--account", first["account"])["credits"] == 10
    second = ask("keys", "create", "--account", first["key"], "--credits", 5)
    assert (second["account"], second["credits"]) == (first["account"], 15)
    wrong = cli("keys", "create", "--account", first["account"], "--credits", "unlimited", "--json")
    assert fault(wrong) == (2, "usage")


def test_limits_and_the_balance_flag_are_kept(ask: Any) -> None:
    made = ask("keys", "create", "--name", "n", "--rpm", 1, "--rpd", 3, "--see-balance")
    (key,) = ask("keys", "list")["keys"]
    assert list(key) == KEY_FIELDS
    created = key.pop("created")
    assert TIME.fullmatch(created)
    assert key == {
        "id": made["id"],
        "account": made["account"],
        "name": "n",
        "limits": {"rpm": 1, "rph": None, "rpd": 3},
        "in_flight": None,
        "tokens": None,
        "search": True,
        "files": True,
        "manages": False,
        "made_by": None,
        "see_balance": True,
        "budgets": {},
        "models": [],
        "expires": None,
        "note": "",
        "suspended": False,
        "revoked": False,
    }


def test_keys_are_listed_by_account(ask: Any) -> None:
    one, two = ask("keys", "create"), ask("keys", "create")
    assert {key["id"] for key in ask("keys", "list")["keys"]} == {one["id"], two["id"]}
    assert [key["id"] for key in ask("keys", "list", "--account", two["account"])["keys"]] == [two["id"]]


@pytest.mark.parametrize("by", ["id", "key"])
def test_a_key_is_revoked_by_id_or_by_itself(ask: Any, by: str) -> None:
    made = ask("keys", "create")
    ended = ask("keys", "revoke", made[by])
    assert (list(ended), ended["id"], ended["revoked"]) == (KEY_FIELDS, made["id"], True)
    assert [key["revoked"] for key in ask("keys", "list")["keys"]] == [True]


def test_an_account_is_shown_by_any_of_its_names(ask: Any, data: Path) -> None:
    made = ask("keys", "create", "--name", "alice", "--credits", 10)
    spend(data, made["key"], "kimi-k3", "kimi-k3")
    names = made["account"], "alice", made["id"], made["key"]
    shown, *others = [ask("accounts", "show", name) for name in names]
    assert others == [shown, shown, shown]
    assert TIME.fullmatch(shown.pop("created"))
    assert [key["id"] for key in shown.pop("keys")] == [made["id"]]
    assert shown == {
        "id": made["account"],
        "name": "alice",
        "invite_code": "inv_" + made["account"].removeprefix("acc_"),
        "invited_by": None,
        "unlimited": False,
        "credits": 8,
        "reserved": 0,
        "consumed": 2,
        "expired": 0,
        "budgets": {},
        "spent": [],
        "grants": [{"amount": 8, "expires": None}],
    }
    assert [each["id"] for each in ask("accounts", "list")["accounts"]] == [made["account"]]


def test_what_is_reserved_stands_beside_the_settled_balance(ask: Any, data: Path) -> None:
    made = ask("keys", "create", "--credits", 10)

    async def reserve() -> None:
        store, now = SqliteStore(data / STORE_NAME), int(time.time())
        key = await store.find_key(keys.digest(made["key"]))
        assert key is not None
        await store.admit("r", key, 4, now + 60, now)
        await store.close()

    asyncio.run(reserve())
    shown = ask("accounts", "show", made["key"])
    assert (shown["credits"], shown["reserved"]) == (10, 4)


def test_a_name_of_two_accounts_names_none(ask: Any, cli: Cli) -> None:
    for _ in range(2):
        ask("accounts", "create", "--name", "twin")
    assert fault(cli("accounts", "show", "twin", "--json")) == (3, "not_found")


def test_grants_have_the_expiry_that_was_asked_for(ask: Any) -> None:
    account = ask("accounts", "create", "--credits", 0)["id"]
    ask("accounts", "grant", account, 1, "--expires", "2100-01-31")
    ask("accounts", "grant", account, 2, "--expires", "2100-02-01T01:00:00+01:00")
    assert ask("accounts", "grant", account, 3)["grants"] == [
        {"amount": 1, "expires": "2100-01-31T00:00:00Z"},
        {"amount": 2, "expires": "2100-02-01T00:00:00Z"},
        {"amount": 3, "expires": None},
    ]


@pytest.mark.parametrize(("words", "amount"), [(("--package", "standard"), 5_000), ((7, "--months", 1), 7)])
def test_a_package_and_months_end_a_month_from_now(ask: Any, words: tuple[object, ...], amount: int) -> None:
    account = ask("accounts", "create", "--credits", 0)["id"]
    before = int(time.time())
    shown = ask("accounts", "grant", account, *words)
    (grant,) = shown["grants"]
    assert (shown["credits"], grant["amount"]) == (amount, amount)
    assert utc(months_later(before, 1)) <= grant["expires"] <= utc(months_later(int(time.time()), 1))


def test_usage_is_reported_by_hour_key_model_and_day(ask: Any, data: Path) -> None:
    made = ask("keys", "create", "--name", "alice")
    spend(data, made["key"], "kimi-k3", "kimi-k2.6", "kimi-k3")
    told = ask("usage", "--account", "alice")
    assert list(told) == ["since", "by", "rows", "total"]
    total = told["total"]
    last = total["last"]
    assert TIME.fullmatch(last)
    counts = {"requests": 3, "errors": 1, "input": 30, "output": 15, "credits": 3}
    assert {name: total[name] for name in counts} == counts
    assert total["causes"] == {"other": 1}
    small, large = told["rows"]
    assert list(small)[:6] == ["hour", "account", "account_name", "key", "key_name", "model"]
    assert {small["account_name"], small["key_name"]} == {"alice"}
    assert (small["model"], small["requests"], large["requests"], large["errors"]) == ("kimi-k2.6", 1, 2, 1)
    names = {"hour": last[:13] + ":00:00Z", "key": made["id"], "day": last[:10], "account": made["account"]}
    for by, value in names.items():
        (row,) = ask("usage", "--by", by)["rows"]
        assert list(row)[0] == by
        assert (row[by], row["requests"]) == (value, 3)
    assert len(ask("usage", "--by", "model", "--days", 1)["rows"]) == 2


def test_usage_is_sorted_and_written_as_csv(cli: Cli, ask: Any, data: Path) -> None:
    evil = ask("keys", "create", "--name", "=1+1")
    spend(data, evil["key"], "kimi-k3", "kimi-k2.6", "kimi-k3")
    models = [row["model"] for row in ask("usage", "--by", "model", "--sort", "requests")["rows"]]
    assert models == ["kimi-k3", "kimi-k2.6"]
    recent, whole = ask("usage", "--by", "model", "--since", "2h"), ask("usage", "--by", "model")
    assert (recent["rows"], recent["total"]) == (whole["rows"], whole["total"])
    assert ask("usage", "--since", "2099-01-01")["rows"] == []
    (row,) = csv.DictReader(io.StringIO(cli("usage", "--by", "key", "--csv").output))
    assert (row["key"], row["key_name"], row["requests"]) == (evil["id"], "'=1+1", "3")
    assert row["errors_other"] == "1"
    for wrong in ("yesterday", "7y", ""):
        assert fault(cli("usage", "--since", wrong, "--json")) == (2, "usage")
    text = cli("usage", "--by", "key").output
    assert "=1+1" in text
    assert "COST" in text


def test_usage_of_nobody_is_empty(ask: Any) -> None:
    told = ask("usage")
    assert (told["rows"], told["total"]["requests"], told["total"]["last"]) == ([], 0, None)


def test_a_key_is_printed_once_and_kept_nowhere(cli: Cli, ask: Any, data: Path) -> None:
    secret = ask("keys", "create", "--name", "alice")["key"]
    for words in (("keys", "list"), ("accounts", "list"), ("accounts", "show", secret), ("usage",)):
        assert secret not in cli(*words).output
        assert secret not in cli(*words, "--json").output
    assert not [file for file in data.iterdir() if secret.encode() in file.read_bytes()]


def test_the_data_folder_and_the_store_are_their_owners_only(ask: Any, data: Path) -> None:
    ask("keys", "create")
    assert (mode(data), mode(data / STORE_NAME)) == (0o700, 0o600)


def test_plain_output_is_aligned_text(cli: Cli) -> None:
    assert cli("keys", "list").stdout == "none\n"
    made = cli("keys", "create", "--name", "alice", "--credits", "5")
    assert re.fullmatch(
        r"key      sk-kg-\w{38}\nid       key_\w+\naccount  acc_\w+\ncredits  5\n\n.*\n", made.stdout
    )
    cli("accounts", "create", "--credits", "unlimited")
    heading, *rows = cli("accounts", "list").stdout.splitlines()
    assert {row[heading.index("CREATED") - 2 :][:2] for row in rows} == {"  "}
    assert len(rows) == 2
