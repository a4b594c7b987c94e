"""The data folder and what is in it: whose modes are changed, what is refused, and the note of a server."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.cli.checks import store_fix
from kimi_gateway.providers.provider import Token
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.command import Cli, mode
from support.serving import command, serving

TOKEN, OTHER = "canary-server-token-0123456789", "canary-other-token-0123456789"
STARTS = [("serve", "--port", "0"), ("keys", "create"), ("tokens", "add", TOKEN)]


@pytest.mark.parametrize("words", STARTS, ids=["serve", "keys", "tokens"])
@pytest.mark.parametrize("wide", [0o755, 0o750, 0o777, 0o1777, 0o770, 0o744, 0o702])
def test_a_folder_that_was_there_keeps_its_mode_and_is_refused_if_others_can_use_it(
    cli: Cli, data: Path, words: tuple[str, ...], wide: int
) -> None:
    data.mkdir()
    data.chmod(wide)
    result = cli(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"chmod 700 {data}" in result.stderr
    assert f"mode {wide:04o}" in result.stderr
    assert "KIMI_GATEWAY_DATA" in result.stderr
    assert mode(data) == wide
    assert list(data.iterdir()) == []


def test_the_command_that_is_named_mends_it(cli: Cli, data: Path) -> None:
    data.mkdir()
    data.chmod(0o755)
    mend = cli("keys", "create").stderr.partition("if nobody else needs this one: ")[2].strip()
    subprocess.run(shlex.split(mend), check=True)
    assert cli("keys", "create").exit_code == 0


@pytest.mark.parametrize("private", [0o700, 0o711])
def test_a_private_folder_that_was_there_is_used_as_it_is(cli: Cli, data: Path, private: int) -> None:
    data.mkdir()
    data.chmod(private)
    assert cli("keys", "create").exit_code == 0
    assert mode(data) == private
    assert mode(data / STORE_NAME) == 0o600


def test_folders_that_are_made_are_private_and_those_above_are_left(
    cli: Cli, tmp_path: Path, data: Path
) -> None:
    tmp_path.chmod(0o755)
    assert cli("keys", "create").exit_code == 0
    assert (mode(data), mode(tmp_path)) == (0o700, 0o755)


def test_a_folder_that_cannot_be_made_names_the_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("/proc/kg", "/dev/null/kg"):
        monkeypatch.setenv("KIMI_GATEWAY_DATA", folder)
        for words in STARTS:
            result = cli(*words)
            assert result.exit_code == 1
            assert folder in result.stderr
            assert "KIMI_GATEWAY_DATA" in result.stderr


@pytest.mark.parametrize("name", [STORE_NAME, "tokens.json"])
@pytest.mark.parametrize("wide", [0o620, 0o602, 0o666])
def test_serve_refuses_files_that_others_may_write(
    cli: Cli, ask: Any, data: Path, name: str, wide: int
) -> None:
    ask("keys", "create")
    ask("tokens", "add", TOKEN)
    (data / name).chmod(wide)
    result = cli("serve", "--port", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{data / name} (mode {wide:04o})" in result.stderr
    assert f"chmod 600 {data / name}" in result.stderr
    assert mode(data / name) == wide


def test_commands_speak_of_the_tokens_that_the_running_server_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("MOONSHOT_API_KEY", TOKEN)
    id = Token.of(TOKEN).id
    with serving(tmp_path) as (address, _):
        monkeypatch.delenv("MOONSHOT_API_KEY")
        listed = command("tokens", "list")
        assert listed["source"] == "environment"
        assert listed["tokens"] == [{"id": id, "source": "environment", "used": True, "out": None}]
        assert listed["server"]["address"] == address
        (checked,) = command("tokens", "check")["tokens"]
        assert (checked["id"], checked["live"]) == (id, None)
        assert "only the running server" in checked["detail"]
        examined = {check["name"]: check["status"] for check in command("doctor")["checks"]}
        assert (examined["server"], examined["token"]) == ("ok", "ok")
        assert "tokens" not in examined  # which would say that the demo answers
        added = command("tokens", "add", OTHER)
        assert added["effective"] is False
        assert [each["used"] for each in command("tokens", "list")["tokens"]] == [True, False]
        monkeypatch.setenv("MOONSHOT_API_KEY", TOKEN)
        assert [each["used"] for each in command("tokens", "list")["tokens"]] == [True, False]
        monkeypatch.delenv("MOONSHOT_API_KEY")
        (note,) = data.glob("server-*.json")
        assert mode(note) == 0o600
        assert TOKEN not in note.read_text()
    assert list(data.glob("server-*.json")) == []
    listed = command("tokens", "list")
    assert (listed["source"], [each["source"] for each in listed["tokens"]]) == ("file", ["file"])


def test_a_server_without_tokens_of_its_own_uses_the_file_whatever_this_shell_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path):
        command("tokens", "add", OTHER)
        monkeypatch.setenv("MOONSHOT_API_KEY", TOKEN)
        listed = command("tokens", "list")
        assert listed["source"] == "file"
        assert [(each["source"], each["used"]) for each in listed["tokens"]] == [
            ("environment", False),
            ("file", True),
        ]


def test_the_note_of_a_server_that_was_killed_is_not_believed_and_goes_with_the_next_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", TOKEN)
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    with serving(tmp_path, kill=True):
        monkeypatch.delenv("MOONSHOT_API_KEY")
        assert ask("tokens", "list")["source"] == "environment"
    (left,) = data.glob("server-*.json")
    assert json.loads(left.read_text())["source"] == "environment"
    assert ask("tokens", "list") == {"source": "none", "tokens": []}
    with serving(tmp_path):
        assert left not in data.glob("server-*.json")


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        ("attempt to write a readonly database", "make the folder writable: chmod u+rwx /data/kg"),
        ("unable to open database file", "make the folder writable"),
        ("database is locked", "another program holds it"),
        ("the file has schema 9, this release knows 4", "install the release that wrote it"),
        ("database disk image is malformed", "restore FILE"),
    ],
)
def test_the_doctor_says_what_mends_a_store_by_its_fault(fault: str, mend: str) -> None:
    assert mend in store_fix(Path("/data/kg/gateway.sqlite3"), fault)
