"""Backups, upstream tokens and the doctor."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import sqlite3
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.storage.sqlite.opening import STORE_NAME
from kimi_gateway.storage.sqlite.store import SqliteStore
from support.command import PROGRAM, Cli, environment, fault, mode
from upstream import ScriptedUpstream, Status, error

GOOD, BAD = "canary-good-token-0123456789", "canary-bad-token-0123456789"


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(tokens={GOOD}) as running:
        monkeypatch.setenv("KIMI_BASE_URL", running.url)
        yield running


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


def test_backups_of_a_folder_are_named_by_their_time_and_the_oldest_are_deleted(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    ask("keys", "create")
    folder = tmp_path / "some" / "backups"
    first = Path(ask("backup", folder, "--keep", 2)["file"])
    assert (first.parent, mode(folder), mode(first)) == (folder, 0o700, 0o600)
    ours = [folder / f"kimi-gateway-2020010{day}-000000.sqlite3" for day in (1, 2)]
    others = [folder / name for name in ("notes", "kimi-gateway-20200101-0.sqlite3", "gateway.sqlite3")]
    for file in (*ours, *others):
        file.touch()
    first.rename(first.with_name("kimi-gateway-20200103-000000.sqlite3"))
    second = Path(ask("backup", folder, "--keep", 2)["file"])
    kept = {"kimi-gateway-20200103-000000.sqlite3", second.name, *(file.name for file in others)}
    assert {file.name for file in folder.iterdir()} == kept
    assert fault(cli("backup", others[0], "--keep", 2, "--json")) == (2, "usage")
    assert fault(cli("backup", second, "--json")) == (1, "exists")


def test_a_backup_leaves_the_conversations_out_if_it_shall(ask: Any, data: Path, tmp_path: Path) -> None:
    made, said = ask("keys", "create"), b"what somebody said to a model" * 50

    async def keep() -> None:
        store = SqliteStore(data / STORE_NAME)
        await store.keep(made["account"], {"response:a": said}, 9_999_999_999)
        await store.close()

    asyncio.run(keep())
    whole, without = tmp_path / "whole", tmp_path / "without"
    ask("backup", whole)
    ask("backup", without, "--without-conversations")
    assert said in whole.read_bytes()
    assert said[:20] not in without.read_bytes()
    with closing(sqlite3.connect(without)) as db:
        assert db.execute("SELECT id FROM keys").fetchall() == [(made["id"],)]
        assert db.execute("SELECT count(*) FROM replay").fetchone() == (0,)
    with closing(sqlite3.connect(data / STORE_NAME)) as db:
        assert db.execute("SELECT count(*) FROM replay").fetchone() == (1,)


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


def test_tokens_are_read_from_stdin_and_kept_in_a_private_file(ask: Any, data: Path) -> None:
    added = ask("tokens", "add", typed=f"{GOOD}\n")
    (token,) = added["tokens"]
    assert added == {"tokens": [{"id": token["id"], "added": True}], "effective": True}
    ask("tokens", "add", "-", typed=f"{BAD},{GOOD}")
    assert json.loads((data / "tokens.json").read_text()) == [GOOD, BAD]
    assert (mode(data), mode(data / "tokens.json")) == (0o700, 0o600)


def test_a_token_may_be_an_argument_and_is_kept_once(ask: Any, cli: Cli) -> None:
    assert [each["added"] for each in ask("tokens", "add", GOOD)["tokens"]] == [True]
    assert [each["added"] for each in ask("tokens", "add", GOOD)["tokens"]] == [False]
    assert "was there already" in cli("tokens", "add", GOOD).stdout


def test_tokens_are_listed_by_their_hashes(ask: Any, cli: Cli) -> None:
    assert ask("tokens", "list") == {"source": "none", "tokens": []}
    assert "demo" in cli("tokens", "list").stdout
    (token,) = ask("tokens", "add", GOOD)["tokens"]
    listed = {"id": token["id"], "source": "file", "used": True, "out": None}
    assert ask("tokens", "list") == {"source": "file", "tokens": [listed]}


def test_a_token_is_taken_out_by_its_id(ask: Any, cli: Cli, data: Path) -> None:
    first, second = ask("tokens", "add", f"{GOOD},{BAD}")["tokens"]
    assert ask("tokens", "remove", first["id"]) == {"id": first["id"], "removed": True}
    assert json.loads((data / "tokens.json").read_text()) == [BAD]
    assert mode(data / "tokens.json") == 0o600
    assert fault(cli("tokens", "remove", first["id"], "--json")) == (3, "not_found")
    assert f"{second['id']} removed" in cli("tokens", "remove", second["id"]).stdout
    assert ask("tokens", "list") == {"source": "none", "tokens": []}


def test_the_environment_wins_and_it_is_said(ask: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", BAD)
    assert ask("tokens", "add", GOOD)["effective"] is False
    assert "the environment wins" in cli("tokens", "add", GOOD).stdout
    listed = ask("tokens", "list")
    assert listed["source"] == "environment"
    assert [(each["source"], each["used"]) for each in listed["tokens"]] == [
        ("environment", True),
        ("file", False),
    ]
    assert "the environment wins" in cli("tokens", "list").stdout


def test_no_command_shows_a_token(
    cli: Cli, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = Status(403, error("permission_denied_error", f"the token {BAD} may not do this"))
    upstream.at("/v1/users/me/balance", echo)
    seen = cli("tokens", "add", GOOD).output
    monkeypatch.setenv("MOONSHOT_API_KEY", BAD)
    for words in (("tokens", "add", GOOD), ("tokens", "list"), ("tokens", "check"), ("doctor",)):
        seen += cli(*words).output + cli(*words, "--json").output
    assert "may not do this" in seen
    assert GOOD not in seen
    assert BAD not in seen


def test_checking_asks_the_upstream_about_each_token(cli: Cli, ask: Any, upstream: ScriptedUpstream) -> None:
    assert ask("tokens", "check") == {"tokens": []}
    ask("tokens", "add", GOOD)
    (live,) = ask("tokens", "check")["tokens"]
    assert (list(live), live["live"]) == (["id", "live", "detail"], True)
    ask("tokens", "add", BAD)
    result = cli("tokens", "check", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert [each["live"] for each in json.loads(result.stdout)["tokens"]] == [True, False]


def test_a_token_that_nobody_can_tell_of_is_neither_live_nor_dead(
    cli: Cli, ask: Any, upstream: ScriptedUpstream
) -> None:
    ask("tokens", "add", GOOD)
    upstream.at("/v1/users/me/balance", Status(500, error("server_error", "broken today")))
    result = cli("tokens", "check", "--json")
    (token,) = json.loads(result.stdout)["tokens"]
    assert (result.exit_code, token["live"], token["detail"]) == (1, None, "server: broken today")


def test_a_tokens_file_of_something_else_is_left_alone(cli: Cli, data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "tokens.json").write_text("{}")
    for words in (("add", GOOD), ("list",), ("check",)):
        assert fault(cli("tokens", *words, "--json")) == (1, "tokens_file")
    assert (data / "tokens.json").read_text() == "{}"


def examined(cli: Cli) -> tuple[int, dict[str, list[str]]]:
    """The doctor's exit code and what it says: each check's statuses by its name."""
    result = cli("doctor", "--json")
    document = json.loads(result.stdout)
    assert (list(document), result.stderr) == (["ok", "checks"], "")
    assert document["ok"] == (result.exit_code == 0)
    found: dict[str, list[str]] = {}
    for check in document["checks"]:
        assert list(check) == ["name", "status", "detail", "fix"]
        assert (check["fix"] is None) == (check["status"] == "ok")
        found.setdefault(check["name"], []).append(check["status"])
    plain = cli("doctor")
    assert (plain.exit_code, plain.stdout.count("fix: ")) == (
        result.exit_code,
        sum(status != "ok" for statuses in found.values() for status in statuses),
    )
    return result.exit_code, found


def test_the_doctor_before_the_first_start_makes_nothing(cli: Cli, data: Path) -> None:
    code, found = examined(cli)
    assert code == 0
    assert found == {
        "settings": ["ok"],
        "models": ["ok"],
        "data folder": ["warn"],
        "store": ["warn"],
        "tokens": ["warn"],
    }
    assert "not started yet" in cli("doctor").stdout
    assert not data.exists()


def test_the_doctor_finds_a_gateway_in_order(cli: Cli, ask: Any, upstream: ScriptedUpstream) -> None:
    made = ask("keys", "create")
    ask("tokens", "add", GOOD)
    names = "settings", "models", "data folder", "store", "keys", "tokens file", "token"
    assert examined(cli) == (0, {name: ["ok"] for name in names})
    ask("keys", "revoke", made["id"])
    assert examined(cli)[1]["keys"] == ["warn"]


def test_the_doctor_finds_tokens_that_are_refused_or_unknown(
    cli: Cli, ask: Any, upstream: ScriptedUpstream
) -> None:
    ask("tokens", "add", f"{GOOD},{BAD}")
    code, found = examined(cli)
    assert (code, found["token"]) == (1, ["ok", "FAIL"])
    upstream.at("/v1/users/me/balance", Status(500, error("server_error", "broken")))
    assert examined(cli)[1]["token"] == ["FAIL", "FAIL"]
    upstream.at("/v1/users/me/balance", Status(429, error("engine_overloaded_error", "busy")))
    assert examined(cli) == (0, found | {"token": ["warn", "warn"]})


def test_the_doctor_finds_modes_that_let_others_in_and_leaves_them(cli: Cli, ask: Any, data: Path) -> None:
    ask("keys", "create")
    (data / "tokens.json").write_text("[]")
    for path, wide in ((data, 0o755), (data / STORE_NAME, 0o644), (data / "tokens.json", 0o640)):
        path.chmod(wide)
    code, found = examined(cli)
    assert (code, found["data folder"], found["store"], found["tokens file"]) == (
        1,
        ["FAIL"],
        ["FAIL"],
        ["FAIL"],
    )
    assert f"chmod 700 {data}" in cli("doctor").stdout
    assert mode(data) == 0o755


def test_the_doctor_finds_files_that_cannot_be_read(
    cli: Cli, ask: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("keys", "create")
    (data / "tokens.json").write_text("{}")
    (data / "tokens.json").chmod(0o600)
    models = tmp_path / "models.json"
    models.write_text('{"aliases": {"a": "nothing"}}')
    monkeypatch.setenv("KIMI_GATEWAY_MODELS", str(models))
    store = data / STORE_NAME
    whole = store.read_bytes()
    store.write_bytes(whole[:4096] + b"\xff" * 200 + whole[4296:])
    code, found = examined(cli)
    assert (code, found["models"], found["store"], found["tokens file"]) == (
        1,
        ["FAIL"],
        ["FAIL"],
        ["ok", "FAIL"],
    )
    store.write_text("this is not a database " * 100)
    assert examined(cli)[1]["store"] == ["FAIL"]


def test_the_doctor_finds_a_store_of_a_newer_release(cli: Cli, ask: Any, data: Path) -> None:
    ask("keys", "create")
    with closing(sqlite3.connect(data / STORE_NAME)) as db:
        db.execute("PRAGMA user_version = 999")
    assert "install the release that wrote it" in cli("doctor").stdout


def test_the_doctor_names_every_fault_of_the_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_GATEWAY_LEASE", "soon")
    monkeypatch.setenv("KIMI_GATEWAY_MODLES", "x")
    assert examined(cli) == (1, {"settings": ["FAIL", "FAIL"]})


def test_at_a_terminal_a_token_is_asked_for_and_not_echoed(data: Path) -> None:
    ours, theirs = pty.openpty()
    # Without a session of its own it would ask at the terminal that runs the tests.
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    words = [*PROGRAM, "tokens", "add"]
    with subprocess.Popen(words, env=environment(), start_new_session=True, **ends) as asked:
        os.close(theirs)
        seen = _until(ours, b"Token")
        while termios.tcgetattr(ours)[3] & termios.ECHO:  # it goes off right after the prompt
            time.sleep(0.001)
        os.write(ours, GOOD.encode() + b"\n")
        seen += _until(ours, b"added")
        asked.wait(60)
    os.close(ours)
    assert GOOD.encode() not in seen
    assert json.loads((data / "tokens.json").read_text()) == [GOOD]


def _until(terminal: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, seen
        seen += os.read(terminal, 4096)
    return seen
