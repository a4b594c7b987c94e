"""A backup takes the database's place: whole or not at all, and never under a process that uses it."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.storage.sqlite import opening
from kimi_gateway.storage.sqlite.database import MIGRATIONS
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support.command import Cli, environment, fault, mode
from support.serving import KEY, chat, command, serving


def test_a_backup_takes_the_databases_place_and_the_old_one_is_kept(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    before, file = ask("keys", "create", "--name", "before"), tmp_path / "backup"
    ask("backup", file)
    after = ask("keys", "create", "--name", "after")
    told = ask("restore", file)
    assert ask("keys", "list")["keys"][0]["id"] == before["id"]
    assert len(ask("keys", "list")["keys"]) == 1
    assert mode(data / STORE_NAME) == 0o600
    kept = Path(told["kept"])
    assert kept.parent == data
    with closing(sqlite3.connect(kept)) as db:
        assert {id for (id,) in db.execute("SELECT id FROM keys")} == {before["id"], after["id"]}
    assert file.exists()
    assert ask("restore", kept)["kept"] != str(kept)
    assert len(ask("keys", "list")["keys"]) == 2
    assert f"{file} is the database now." in cli("restore", file).stdout


def test_a_folder_without_a_database_gets_one(ask: Any, data: Path, tmp_path: Path) -> None:
    made, file = ask("keys", "create"), tmp_path / "backup"
    ask("backup", file)
    shutil.rmtree(data)
    assert ask("restore", file)["kept"] is None
    assert [key["id"] for key in ask("keys", "list")["keys"]] == [made["id"]]
    assert (mode(data), mode(data / STORE_NAME)) == (0o700, 0o600)


def no_database(file: Path) -> None:
    file.write_text("not a database " * 300)


def another_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE accounts (id)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 999")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damaged(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'keys'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    file.write_bytes(content)


def in_use(file: Path) -> None:
    file.with_name(file.name + "-wal").write_bytes(b"")


@pytest.mark.parametrize("spoil", [no_database, another_program, newer, cut, damaged, in_use])
def test_what_is_no_whole_backup_of_ours_changes_nothing(
    ask: Any, cli: Cli, data: Path, tmp_path: Path, spoil: Any
) -> None:
    ask("keys", "create")
    file = tmp_path / "backup"
    ask("backup", file)
    spoil(file)
    content = (data / STORE_NAME).read_bytes()
    assert fault(cli("restore", file, "--json")) == (1, "no_backup")
    assert (data / STORE_NAME).read_bytes() == content
    assert sorted(path.name for path in data.iterdir()) == sorted([STORE_NAME, opening.LOCK_NAME])


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_older_schema_is_brought_up_to_date(ask: Any, tmp_path: Path, version: int) -> None:
    """Of every release before this one."""
    file = tmp_path / "backup"
    with closing(sqlite3.connect(file)) as db, db:
        for step in [step for steps in MIGRATIONS[:version] for step in steps]:
            db.execute(step)
        db.execute(
            "INSERT INTO accounts (id, name, unlimited, created, grants, spendable, consumed, expired)"
            " VALUES ('acc_1', 'Ann', 0, 1, '', 0, 0, 0)"
        )
        db.execute(
            "INSERT INTO keys (id, digest, account, name, see_balance, created)"
            " VALUES ('key_1', 'd', 'acc_1', 'laptop', 0, 1)"
        )
        db.execute(f"PRAGMA user_version = {version}")
    ask("restore", file)
    (key,) = ask("keys", "list")["keys"]
    assert (key["id"], key["name"]) == ("key_1", "laptop")


def test_it_refuses_beside_a_process_that_uses_the_database(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    with serving(tmp_path) as (address, printed):
        ask("backup", file)
        (key,) = set(KEY.findall(printed))
        result = cli("restore", file)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"The gateway runs on {address}" in result.stderr
        assert "Stop it first: kill " in result.stderr
        assert chat(address, key) == 200
    with opening.using(data):  # another command
        assert fault(cli("restore", file, "--json")) == (1, "running")
    assert cli("restore", file).exit_code == 0


def test_nobody_opens_the_database_while_it_is_replaced(ask: Any, cli: Cli, data: Path) -> None:
    ask("keys", "create")
    with opening.using(data, alone=True):
        assert fault(cli("keys", "list", "--json")) == (1, "in_use")
        assert cli("serve", "--port", "0").exit_code == 1
    assert len(ask("keys", "list")["keys"]) == 1


def test_after_a_kill_the_log_is_taken_into_the_database_first_by_the_command_that_is_printed(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    with serving(tmp_path, kill=True) as (address, printed):
        (key,) = set(KEY.findall(printed))
        ask("backup", file)
        made = command("keys", "create", "--name", "after the backup")
        assert chat(address, made["key"]) == 200
    assert (data / f"{STORE_NAME}-wal").exists()
    result = cli("restore", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "left over from a process that was killed" in result.stderr
    line = result.stderr.partition("into the database: ")[2].partition(" - and")[0]
    subprocess.run(["sh", "-c", line], env=environment(), check=True, capture_output=True)
    told = ask("restore", file)
    assert [key["name"] for key in ask("keys", "list")["keys"]] == ["home"]
    ask("restore", told["kept"])
    assert ask("accounts", "show", made["key"])["consumed"] == 1  # nothing of the log was lost
    with serving(tmp_path) as (address, _):
        assert (chat(address, key), chat(address, made["key"])) == (200, 200)
    assert shlex.split(line)
