"""kimi-gateway export and import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.command import Cli, fault, mode


def test_an_export_is_private_whole_and_moves_a_gateway(
    ask: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, file = ask("keys", "create", "--name", "alice", "--credits", 7), tmp_path / "file"
    assert ask("export", file) == {"file": str(file), "accounts": 1, "usage": 0, "reserved": 0}
    assert mode(file) == 0o600
    assert made["key"] not in file.read_text()
    before = file.read_bytes()
    assert fault(cli("export", file, "--json")) == (1, "exists")
    assert file.read_bytes() == before
    ask("export", file, "--force")
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    shown = ask("accounts", "list")
    assert fault(cli("import", file, "--json")) == (1, "exists")
    monkeypatch.setenv("KIMI_GATEWAY_DATA", str(tmp_path / "elsewhere"))
    assert ask("import", file) == {"file": str(file), "imported": 1, "known": 0}
    assert ask("import", file) == {"file": str(file), "imported": 0, "known": 1}
    assert ask("accounts", "list") == shown
    assert ask("keys", "show", made["key"])["id"] == made["id"]


def test_a_file_that_is_no_complete_export_changes_nothing(
    ask: Any, cli: Cli, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    assert fault(cli("export", file, "--json")) == (1, "no_store")
    assert not file.exists()
    assert fault(cli("import", file, "--json")) == (3, "not_found")
    ask("keys", "create")
    ask("export", file)
    file.write_bytes(file.read_bytes()[:-5])
    assert fault(cli("import", file, "--json")) == (1, "no_export")
    file.write_text(json.dumps({"accounts": []}))
    assert fault(cli("import", file, "--json")) == (1, "no_export")
    assert fault(cli("export", tmp_path / "none" / "file", "--json")) == (2, "usage")
