"""Real processes change one file at the same time, and no change is lost."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from kimi_gateway import private_file
from kimi_gateway.private_file import changing, is_locked
from kimi_gateway.providers.kimi_web.newest import MOST, NAME, NewestFile
from kimi_gateway.providers.tokens.file import TokenFile
from support import ROOT

RENEW = """
import sys
from pathlib import Path
from kimi_gateway.providers.kimi_web.newest import NewestFile
file, mine = NewestFile(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(15):
    file.write(f"{mine}-{number}", f"refresh-{mine}-{number}")
"""
ADD = """
import os, sys
from contextlib import suppress
os.environ["KIMI_GATEWAY_DATA"] = sys.argv[1]
from kimi_gateway.cli import main
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    with suppress(SystemExit):
        main(["tokens", "add", f"sk-process-{sys.argv[2]}-{number}"])
"""
PROCESSES = 4


def together(script: str, path: Path) -> None:
    """Run the script in several processes that begin at the same time."""
    with ExitStack() as stack:
        running = []
        for number in range(PROCESSES):
            command = [sys.executable, "-c", script, str(path), str(number)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command, text=True, cwd=ROOT / "functions", **pipes)  # type: ignore[call-overload]
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in running:
            process.communicate(timeout=60)
            assert process.returncode == 0


def test_sessions_that_several_processes_renew_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / NAME
    together(RENEW, path)
    expected = {
        f"{process}-{number}": f"refresh-{process}-{number}"
        for process in range(PROCESSES)
        for number in range(15)
    }
    assert len(expected) < MOST
    assert json.loads(path.read_text()) == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_tokens_that_several_commands_add_are_all_stored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    together(ADD, data)
    tokens = TokenFile(data / "tokens.json").kept()["moonshot"]
    expected = [f"sk-process-{process}-{number}" for process in range(PROCESSES) for number in range(4)]
    assert sorted(tokens) == expected


def test_a_process_that_keeps_the_lock_does_not_stop_a_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token lives in this process then, and is written with the next one."""
    monkeypatch.setattr(private_file, "PATIENCE", 0.0)
    path = tmp_path / NAME
    file = NewestFile(path)
    with changing(path):
        lock = path.with_name(f".{NAME}.lock")
        with lock.open("rb") as other:
            assert is_locked(other.fileno())
        file.write("a", "refresh-a")
        assert file.read("a") == "refresh-a"
        assert not path.exists()
    with lock.open("rb") as other:
        assert not is_locked(other.fileno())
    file.write("b", "refresh-b")
    assert json.loads(path.read_text()) == {"a": "refresh-a", "b": "refresh-b"}
