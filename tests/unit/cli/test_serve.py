"""From nothing to a first answer: what serve prints, and commands on the store of a server that runs."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import httpx
import pytest

from kimi_gateway.cli.serve import url
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.command import Cli, mode
from support.serving import KEY, chat, command, serving


def test_the_first_start_prints_a_key_once_and_a_line_that_works(data: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as (address, printed):
        (key,) = set(KEY.findall(printed))
        assert "unlimited. It is shown only now" in printed
        assert "built-in demo" in printed
        (line,) = [line for line in printed.splitlines() if line.startswith("  curl ")]
        program, *words = shlex.split(line)
        assert words[:2] == ["-N", f"{address}/v1/chat/completions"]
        assert words[2:6] == ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
        assert json.loads(words[7])["stream"] is True
        headers = dict(words[at + 1].split(": ") for at in (2, 4))
        answer = httpx.post(words[1], content=words[7], headers=headers)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert (mode(data), mode(data / STORE_NAME)) == (0o700, 0o600)
        account = command("accounts", "show", key)
        assert (account["name"], account["credits"]) == ("home", "unlimited")
        assert account["keys"][0]["see_balance"] is True
    with serving(tmp_path, "--passthrough") as (address, printed):
        assert not KEY.search(printed)
        assert "kimi-gateway keys create" in printed
        assert "callers may send Kimi tokens of their own" in printed
        refused = httpx.get(f"{address}/v1/models", headers={"authorization": "Bearer garbage"})
        assert "Token 1 cannot" in refused.json()["error"]["message"]
    assert key not in (tmp_path / "err").read_text()
    assert len(command("keys", "list")["keys"]) == 1


def test_commands_work_on_the_store_of_a_server_that_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, "--workers", "2") as (address, _):
        made = command("keys", "create", "--credits", "2")
        assert [chat(address, made["key"]) for _ in range(3)] == [200, 200, 403]
        command("accounts", "grant", made["account"], 1)
        assert chat(address, made["key"]) == 200
        command("backup", tmp_path / "backup")
        command("keys", "revoke", made["id"])
        assert [chat(address, made["key"]) for _ in range(4)] == [401] * 4
        assert command("usage", "--account", made["account"])["total"]["requests"] == 3
    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    (tmp_path / "backup").rename(restored / STORE_NAME)
    monkeypatch.setenv("KIMI_GATEWAY_DATA", str(restored))
    shown = command("accounts", "show", made["key"])
    assert (shown["consumed"], shown["keys"][0]["revoked"]) == (3, False)


def test_a_port_that_is_taken_is_reported_before_anything_is_made(cli: Cli, data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("serve", "--port", port)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Port {port} of 127.0.0.1 cannot be used" in result.stderr
    assert not data.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no host"])
def test_an_address_of_another_machine_is_reported_as_such(cli: Cli, data: Path, host: str) -> None:
    result = cli("serve", "--host", host, "--port", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{host} is not an address of this machine" in result.stderr
    assert result.stderr.endswith("Correct --host.\n")
    assert not data.exists()


@pytest.mark.parametrize("words", [("--workers", "0"), ("--port", "65536"), ("--port", "http")])
def test_a_server_that_cannot_be_is_wrong_usage(cli: Cli, data: Path, words: tuple[str, str]) -> None:
    assert cli("serve", *words).exit_code == 2
    assert not data.exists()


def test_a_models_file_that_is_wrong_is_a_wrong_setting(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models.json"
    models.write_text('{"aliases": {"a": "nothing"}}')
    monkeypatch.setenv("KIMI_GATEWAY_MODELS", str(models))
    result = cli("serve")
    assert result.exit_code == 2
    assert "KIMI_GATEWAY_MODELS" in result.stderr


def test_a_token_under_another_name_is_pointed_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_API_KEY", "canary-upstream-token-0123456789")
    with serving(tmp_path) as (_, printed):
        assert "KIMI_API_KEY has no effect; the name is MOONSHOT_API_KEY." in printed
        assert "canary" not in printed


def test_the_upstream_is_named_and_its_token_is_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", "canary-upstream-token-0123456789")
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving(tmp_path) as (_, printed):
        assert "Moonshot at http://127.0.0.1:9/v1 (1 token from the environment)" in printed
    assert "canary" not in printed + (tmp_path / "err").read_text()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("box.lan", "http://box.lan:80"),
    ],
)
def test_the_address_printed_is_one_that_can_be_called(host: str, address: str) -> None:
    assert url(host, 80) == address


def test_what_the_journal_keeps_has_no_key(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").touch()
    output = (tmp_path / "out").stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{output.st_dev}:{output.st_ino}")
    with serving(tmp_path) as (_, printed):
        assert "no key is made here" in printed
        assert not KEY.search(printed)
        assert command("keys", "list")["keys"] == []
