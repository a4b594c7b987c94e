"""Exit codes for scripts, and errors that repeat no secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from kimi_gateway import __version__
from kimi_gateway.accounts import keys
from kimi_gateway.cli import main
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.command import PROGRAM, Cli, environment, fault

TOKEN = "canary-upstream-token-0123456789"


def commands() -> Iterator[tuple[str, click.Command]]:
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())
        else:
            yield name, command


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


def test_a_number_that_is_none_is_named_in_plain_words(cli: Cli) -> None:
    assert "'ten' is not a whole number." in cli("accounts", "grant", "a", "ten").stderr
    assert "'abc' is not a whole number." in cli("serve", "--port", "abc").stderr
    assert "'often' is not a number." in cli("top", "--every", "often").stderr


def test_one_form_of_output_at_a_time(cli: Cli) -> None:
    assert fault(cli("usage", "--csv", "--json")) == (2, "usage")


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read everything")
def test_the_doctor_diagnoses_a_folder_that_it_may_not_read(cli: Cli, ask: Any, data: Path) -> None:
    ask("keys", "create")
    data.chmod(0)
    lesser = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run(
            [*lesser, *PROGRAM, "doctor", "--json"], env=environment(), capture_output=True, text=True
        )
    finally:
        data.chmod(0o700)
    assert done.returncode == 1, done.stderr
    checks = {each["name"]: each["status"] for each in json.loads(done.stdout)["checks"]}
    assert checks == {"settings": "ok", "models": "ok", "data folder": "FAIL"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="for Linux")
@pytest.mark.parametrize("words", [["keys", "create"], ["keys", "rotate", "laptop"]])
def test_a_secret_that_could_not_be_shown_is_said_to_be_lost(ask: Any, data: Path, words: list[str]) -> None:
    ask("keys", "create", "--name", "laptop")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *words], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "could not be shown: No space left on device. It is lost." in done.stderr
    keys_now = [each["id"] for each in ask("keys", "list")["keys"]]
    assert done.stderr.split()[-1] in keys_now
    assert "sk-kg-" not in done.stderr


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
    data.mkdir(0o700)
    (data / STORE_NAME).write_text("this is not a database " * 100)
    assert fault(cli("accounts", "list", "--json")) == (1, "store_down")
    for words in (("accounts", "list"), ("serve", "--port", "0")):
        assert "kimi-gateway doctor says more." in cli(*words).stderr
    assert str(data / STORE_NAME) in cli("doctor").stdout


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
        ("keys", "create", "--name", "SECRET\x1b"),
        ("keys", "create", "--account", "SECRET"),
        ("usage", "--by", "SECRET"),
        ("tokens", "add", "one-of-two", "SECRET"),
        ("tokens", "add", "blank SECRET"),
        ("tokens", "SECRET"),
        ("SECRET",),
    ],
)
@pytest.mark.parametrize(
    "secret", [keys.new_key(), "sk-kg-mistyped0123456789", TOKEN], ids=["key", "mistyped", "token"]
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_no_error_repeats_a_secret(
    cli: Cli, words: tuple[str, ...], secret: str, as_json: tuple[str, ...]
) -> None:
    result = cli(*(word.replace("SECRET", secret) for word in words), *as_json)
    assert result.exit_code in (2, 3)
    assert secret not in result.output


def test_an_unknown_key_is_shown_by_its_end_alone(cli: Cli) -> None:
    secret = keys.new_key()
    assert f"'sk-kg-…{secret[-4:]}'" in cli("accounts", "show", secret).stderr


def test_each_command_has_help_with_exit_codes_and_json(cli: Cli) -> None:
    for name, command in commands():
        result = cli(*name.split(), "--help")
        assert result.exit_code == 0
        assert "Exit codes:" in result.stdout, name
        assert ("--json" in result.stdout) == (name not in ("serve", "service")), name
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
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert ran.stdout == '{"keys": []}\n[]\n'


def test_a_reader_that_left_is_no_crash(data: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--help"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout
        assert ran.stderr
        ran.stdout.close()
        assert ran.stderr.read() == b""
    assert ran.returncode == 1
