"""What operators and their scripts rely on: documents, exit codes, file modes, and secrets that stay in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import kimi_gateway
from kimi_gateway import __version__
from kimi_gateway.accounts import keys
from kimi_gateway.accounts.sqlite import SqliteStore
from kimi_gateway.accounts.values import Usage
from kimi_gateway.cli import main
from kimi_gateway.home import STORE_NAME

Cli = Callable[..., Result]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TOKEN = "canary-upstream-token-0123456789"
KEY_FIELDS = ["id", "account", "name", "limits", "see_balance", "revoked", "created"]


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("KIMI", "MOONSHOT")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("KIMI_GATEWAY_DATA", str(folder))
    return folder


@pytest.fixture
def cli(data: Path) -> Cli:
    def run(*words: object, typed: str | None = None) -> Result:
        result = CliRunner().invoke(main, [str(word) for word in words], input=typed)
        assert isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def ask(cli: Cli) -> Callable[..., Any]:
    """The document that a command prints with --json."""

    def run(*words: object, typed: str | None = None) -> Any:
        result = cli(*words, "--json", typed=typed)
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fault(result: Result) -> tuple[int, str]:
    """Exit code and error code of a command with --json that failed."""
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert list(error) == ["error"]
    assert list(error["error"]) == ["message", "code"]
    return result.exit_code, error["error"]["code"]


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


def commands() -> Iterator[tuple[str, click.Command]]:
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())
        else:
            yield name, command


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
        "see_balance": True,
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
        "unlimited": False,
        "credits": 8,
        "reserved": 0,
        "consumed": 2,
        "expired": 0,
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
    ask("accounts", "grant", account, 3)
    shown = ask("accounts", "grant", account, "--package", "standard")
    standard, *others = shown["grants"]
    assert others == [
        {"amount": 1, "expires": "2100-01-31T00:00:00Z"},
        {"amount": 2, "expires": "2100-02-01T00:00:00Z"},
        {"amount": 3, "expires": None},
    ]
    assert (shown["credits"], standard["amount"]) == (5_006, 5_000)
    assert standard["expires"] == ask("accounts", "grant", account, 4, "--months", 1)["grants"][0]["expires"]


def test_usage_is_told_by_hour_key_model_and_day(ask: Any, data: Path) -> None:
    made = ask("keys", "create", "--name", "alice")
    spend(data, made["key"], "kimi-k3", "kimi-k2.6", "kimi-k3")
    told = ask("usage", "--account", "alice")
    assert list(told) == ["since", "by", "rows", "total"]
    last = told["total"].pop("last")
    assert TIME.fullmatch(last)
    assert told["total"] == {"requests": 3, "errors": 1, "input": 30, "output": 15, "credits": 3}
    small, large = told["rows"]
    assert list(small) == "hour account key model requests errors input output credits last".split()
    assert (small["model"], small["requests"], large["requests"], large["errors"]) == ("kimi-k2.6", 1, 2, 1)
    names = {"hour": last[:13] + ":00:00Z", "key": made["id"], "day": last[:10]}
    for by, value in names.items():
        (row,) = ask("usage", "--by", by)["rows"]
        assert list(row)[0] == by
        assert (row[by], row["requests"]) == (value, 3)
    assert len(ask("usage", "--by", "model", "--days", 1)["rows"]) == 2


def test_usage_of_nobody_is_empty(ask: Any) -> None:
    told = ask("usage")
    assert (told["rows"], told["total"]["requests"], told["total"]["last"]) == ([], 0, None)


@pytest.mark.parametrize(
    "words",
    [
        ("accounts", "show", "nobody"),
        ("accounts", "grant", "nobody", "5"),
        ("keys", "list", "--account", "nobody"),
        ("keys", "create", "--account", "nobody"),
        ("keys", "revoke", "key_nobody"),
        ("usage", "--account", "nobody"),
    ],
)
def test_an_unknown_account_or_key_is_exit_3(cli: Cli, words: tuple[str, ...]) -> None:
    assert fault(cli(*words, "--json")) == (3, "not_found")
    plain = cli(*words)
    assert (plain.exit_code, plain.stdout) == (3, "")
    assert plain.stderr.startswith("Error: No ")


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "create", "--credits", "-1"),
        ("keys", "create", "--credits", "many"),
        ("keys", "create", "--rpm", "0"),
        ("keys", "create", "--name", "a\x1bb"),
        ("accounts", "show", " "),
        ("accounts", "show"),
        ("accounts", "grant", "a"),
        ("accounts", "grant", "a", "0"),
        ("accounts", "grant", "a", "1", "--package", "standard"),
        ("accounts", "grant", "a", "1", "--months", "1", "--expires", "2100-01-01"),
        ("accounts", "grant", "a", "1", "--expires", "2001-01-01"),
        ("accounts", "grant", "a", "1", "--expires", "soon"),
        ("usage", "--by", "week"),
        ("usage", "--days", "0"),
        ("tokens", "add", "two words"),
        ("tokens", "add", ""),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_2(cli: Cli, words: tuple[str, ...]) -> None:
    assert fault(cli(*words, "--json")) == (2, "usage")
    assert cli(*words).exit_code == 2


def test_every_fault_of_the_settings_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_GATEWAY_LEASE", "soon")
    monkeypatch.setenv("KIMI_GATEWAY_MODLES", "x")
    for words in (("keys", "list"), ("serve",), ("tokens", "check"), ("backup", "x")):
        result = cli(*words)
        assert result.exit_code == 2
        assert "KIMI_GATEWAY_LEASE" in result.stderr
        assert "KIMI_GATEWAY_MODLES is not a setting" in result.stderr
    assert fault(cli("usage", "--json")) == (2, "settings")


def test_a_store_that_is_no_store_is_exit_1(cli: Cli, data: Path) -> None:
    data.mkdir()
    (data / STORE_NAME).write_text("this is not a database " * 100)
    assert fault(cli("accounts", "list", "--json")) == (1, "store_down")


@pytest.mark.parametrize(
    "words",
    [
        ("accounts", "show", "SECRET"),
        ("accounts", "SECRET"),
        ("accounts", "list", "SECRET"),
        ("accounts", "grant", "SECRET", "5"),
        ("accounts", "grant", "name", "SECRET"),
        ("keys", "revoke", "SECRET"),
        ("keys", "revoke", "key_1", "SECRET"),
        ("keys", "create", "--rpm=SECRET"),
        ("keys", "create", "--name", "SECRET\t"),
        ("keys", "create", "--account", "SECRET"),
        ("usage", "--by", "SECRET"),
        ("tokens", "add", "one-of-two", "SECRET"),
        ("tokens", "add", "blank SECRET"),
        ("tokens", "SECRET"),
        ("SECRET",),
    ],
)
@pytest.mark.parametrize("secret", [keys.new_key(), "sk-kg-mistyped0123456789", TOKEN])
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_no_error_repeats_a_secret(
    cli: Cli, words: tuple[str, ...], secret: str, as_json: tuple[str, ...]
) -> None:
    result = cli(*(word.replace("SECRET", secret) for word in words), *as_json)
    if secret == TOKEN and words[:2] == ("accounts", "show"):
        secret = "only what can be a key or token by its place or shape is hidden"
    assert result.exit_code in (2, 3)
    assert secret not in result.output


def test_an_unknown_key_is_shown_by_its_end_alone(cli: Cli) -> None:
    secret = keys.new_key()
    assert f"'sk-kg-…{secret[-4:]}'" in cli("accounts", "show", secret).stderr


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


def test_each_command_has_help_with_exit_codes_and_json(cli: Cli) -> None:
    for name, command in commands():
        result = cli(*name.split(), "--help")
        assert result.exit_code == 0
        assert "Exit codes:" in result.stdout, name
        assert ("--json" in result.stdout) == (name != "serve")
        assert command.help
    assert "Exit codes:" in cli("--help").stdout
    assert __version__ in cli("--version").stdout


def test_a_listing_loads_no_server_and_no_client(data: Path) -> None:
    program = (
        "import sys\nfrom kimi_gateway.cli import main\n"
        "try:\n    main(['keys', 'list', '--json'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'uvicorn', 'fastapi', 'httpx2', 'pydantic', 'httptools'} & set(sys.modules)))"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(kimi_gateway.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout == '{"keys": []}\n[]\n'


def test_a_backup_is_private_has_the_data_and_replaces_nothing_unasked(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    made, file = ask("keys", "create", "--name", "alice"), tmp_path / "copy"
    assert ask("backup", file) == {"file": str(file), "bytes": file.stat().st_size}
    assert mode(file) == 0o600
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT id, account FROM keys").fetchall() == [(made["id"], made["account"])]
    before = file.read_bytes()
    ask("keys", "create")
    assert fault(cli("backup", file, "--json")) == (1, "exists")
    assert file.read_bytes() == before
    ask("backup", file, "--force")
    assert file.read_bytes() != before


def test_a_backup_never_writes_over_the_store_or_where_nothing_can_be(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    assert fault(cli("backup", tmp_path / "copy", "--json")) == (1, "no_store")
    assert not data.exists()
    ask("keys", "create")
    assert fault(cli("backup", data / STORE_NAME, "--force", "--json")) == (2, "usage")
    assert fault(cli("backup", tmp_path / "none" / "copy", "--json")) == (2, "usage")
    assert fault(cli("backup", tmp_path, "--force", "--json")) == (2, "usage")
    assert len(ask("keys", "list")["keys"]) == 1
