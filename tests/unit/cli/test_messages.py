"""What commands say when something is wrong: the thing, the reason, the next step."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.cli.serve import addresses
from support import ROOT
from support.command import PROGRAM, Cli, environment, fault
from support.serving import serving

PRINTED = re.compile(r"(?:KIMI_GATEWAY_DATA=\S+ )?\S*kimi-gateway [a-z]+(?: [a-z]+)?")


def test_a_name_of_several_accounts_lists_them(cli: Cli, ask: Any) -> None:
    ids = sorted(ask("accounts", "create", "--name", "alice")["id"] for _ in range(2))
    for words in (("accounts", "show"), ("accounts", "grant"), ("usage", "--account")):
        result = cli(*words, "alice", *(["5"] if "grant" in words else []))
        assert result.exit_code == 3
        assert f"Two accounts are named 'alice': {ids[0]}, {ids[1]}. Use an id." in result.stderr


@pytest.mark.parametrize("words", [("keys", "create"), ("accounts", "create")])
def test_a_name_that_is_taken_is_warned_of(cli: Cli, ask: Any, words: tuple[str, str]) -> None:
    first = ask("accounts", "create", "--name", "alice")
    assert "warning" not in ask(*words, "--name", "bob")
    result = cli(*words, "--name", "alice")
    assert result.exit_code == 0
    assert f"Warning: An account is named 'alice' already: {first['id']}." in result.stderr
    assert "named 'alice'" in ask(*words, "--name", "alice")["warning"]
    assert "warning" not in ask(*words)


def test_credits_are_taken_away_by_deduct_and_grant_says_so(cli: Cli, ask: Any) -> None:
    id = ask("accounts", "create", "--name", "bob", "--credits", "30")["id"]
    result = cli("accounts", "grant", "bob", "-20")
    assert result.exit_code == 2
    assert "Credits cannot be taken away with grant; use accounts deduct." in result.stderr
    assert ask("accounts", "deduct", "bob", "20")["credits"] == 10
    assert fault(cli("accounts", "deduct", "bob", "11", "--json")) == (1, "too_few_credits")
    assert (
        "Only 10 credits can be taken away; nothing was taken." in cli("accounts", "deduct", id, "11").stderr
    )
    for wrong in ("-5", "0", "many", "1.5"):
        assert cli("accounts", "deduct", "bob", wrong).exit_code == 2
    assert ask("accounts", "show", "bob")["credits"] == 10
    ask("accounts", "create", "--name", "free", "--credits", "unlimited")
    assert fault(cli("accounts", "deduct", "free", "1", "--json")) == (1, "unlimited")
    assert "No such option" in cli("accounts", "grant", "bob", "5", "--mnths", "3").stderr


@pytest.mark.parametrize(
    ("name", "option"),
    [("PORT", "--port"), ("HOST", "--host"), ("WORKERS", "--workers"), ("BIND", "--host")],
)
def test_a_setting_that_is_an_option_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, option: str
) -> None:
    monkeypatch.setenv(f"KIMI_GATEWAY_{name}", "9")
    result = cli("serve")
    assert result.exit_code == 2
    assert f"KIMI_GATEWAY_{name} is not a setting; use {option}" in result.stderr


def test_a_key_of_ours_is_no_token(cli: Cli, ask: Any, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    key = ask("keys", "create")["key"]
    for given in (key, f"sk-upstream-0123456789,{key}"):
        result = cli("tokens", "add", given)
        assert result.exit_code == 2
        assert "That is a key of this gateway, not a Kimi token." in result.stderr
        assert key not in result.output
    assert not (data / "tokens.json").exists()
    monkeypatch.setenv("MOONSHOT_API_KEY", key)
    result = cli("serve")
    assert result.exit_code == 2
    assert "holds a key of this gateway" in result.stderr
    assert key not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"alias": {}}', '"alias" is unknown; did you mean "aliases"?'),
        ('{"models": [{"id": "x", "windw": 5}]}', 'models[0]: "windw" is unknown; did you mean "window"?'),
        ('{"models": [{"id": "x", "window": "big"}]}', "models[0].window should be a valid integer"),
        ("{", "it is not JSON"),
        ("[]", "the document should be an object"),
        ('{"aliases": {"a": "kimi-k33"}}', "did you mean 'kimi-k3'?"),
    ],
)
def test_a_wrong_models_file_is_reported_in_our_words(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    file = tmp_path / "m.json"
    file.write_text(text)
    monkeypatch.setenv("KIMI_GATEWAY_MODELS", str(file))
    for words in (("serve",), ("doctor",)):
        output = cli(*words).output
        assert f"{file}: " in output
        assert said in output
        assert "pydantic" not in output


def test_a_name_that_dns_does_not_know_is_said_to_be_that(
    cli: Cli, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "http://nobody.invalid/v1")
    ask("tokens", "add", "canary-token-0123456789")
    assert "cannot resolve nobody.invalid (DNS)" in cli("tokens", "check").stdout
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    assert "127.0.0.1 refuses connections" in cli("doctor").stdout


def test_what_is_printed_runs_as_it_is_printed(cli: Cli, data: Path, tmp_path: Path) -> None:
    """In another folder, in a shell that knows nothing of this one's environment."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": environment()["PYTHONPATH"], "HOME": str(tmp_path)}
    with serving(tmp_path) as (_, banner):
        printed = banner + cli("doctor").output + cli("accounts", "show", "nobody").output
        lines = sorted(set(PRINTED.findall(printed)))
        assert len(lines) >= 2
        for line in lines:
            runs = (
                f"echo sk-upstream-0123456789 | {line}" if line.endswith("tokens add") else f"{line} --help"
            )
            subprocess.run(["sh", "-c", runs], cwd="/", env=environ, check=True, capture_output=True)
    assert (data / "tokens.json").exists()


def test_a_server_for_other_machines_says_where_and_that_keys_travel_in_clear(
    data: Path, tmp_path: Path
) -> None:
    with serving(tmp_path) as (_, printed):
        assert "TLS" not in printed
    with serving(tmp_path, "--host", "0.0.0.0") as (address, printed):  # noqa: S104
        assert "Without TLS, keys and answers travel in clear" in printed
        port = address.rpartition(":")[2]
        for other in addresses(socket.AF_INET):
            assert f"http://{other}:{port}" in printed
            assert not other.startswith("127.")


@pytest.mark.parametrize(
    ("end", "workers"), [(signal.SIGTERM, "1"), (signal.SIGTERM, "2"), (signal.SIGINT, "1")]
)
def test_the_end_is_said(data: Path, tmp_path: Path, end: signal.Signals, workers: str) -> None:
    words = [*PROGRAM, "serve", "--port", "0", "--workers", workers]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stderr
        for line in server.stderr:
            if b'"started"' in line:
                break
        server.send_signal(end)
        printed, _ = server.communicate(timeout=60)
    assert (server.returncode, printed.decode().splitlines()[-1]) == (0, "stopped")


def test_no_text_tells_people_to_install_a_name_that_is_not_ours() -> None:
    root = ROOT
    texts = [root / "README.md", *root.glob("docs/*.md"), *root.glob("functions/**/*.py")]
    ours = re.compile(r"(pip|pipx|tool) install ['\"]?kimi-gateway|uvx ['\"]?kimi-gateway")
    found = [(file.name, match[0]) for file in texts for match in ours.finditer(file.read_text("utf-8"))]
    assert found == []
