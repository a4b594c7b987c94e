"""scripts/check runs all its checks and says how to mend each one that fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT

TOOLS = {
    "format": "ruff format: run .venv/bin/ruff format .",
    "lint": "ruff check: run .venv/bin/ruff check --fix .",
    "types": "mypy: give the types",
    "imports": "lint-imports: move the code down a layer",
}


def check(folder: Path, failing: set[str]) -> subprocess.CompletedProcess[str]:
    """In a folder whose tools only note that they ran."""
    (folder / "scripts").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "check", folder / "scripts" / "check")
    names = {"ruff": ("format", "lint"), "mypy": ("types",), "lint-imports": ("imports",)}
    scripts = {folder / "scripts" / "setup": "exit 0"}
    for name, (first, *second) in names.items():
        lines = [f"[ $1 = check ] && what={each}" for each in second]
        known = "\n".join([f"what={first}", *lines, 'echo "ran $what"'])
        scripts[folder / ".venv" / "bin" / name] = (
            f'{known}\ncase " {" ".join(failing)} " in *" $what "*) exit 1;; esac'
        )
    for path, text in scripts.items():
        path.write_text(f"#!/bin/sh\n{text}\nexit 0\n")
        path.chmod(0o755)
    return subprocess.run([folder / "scripts" / "check"], capture_output=True, text=True)


@pytest.mark.parametrize(
    "failing",
    [set(), {"format"}, {"lint", "imports"}, {"types"}, set(TOOLS)],
    ids=lambda names: " ".join(sorted(names)) or "none",
)
def test_every_check_runs_and_each_failure_has_its_way_out(tmp_path: Path, failing: set[str]) -> None:
    done = check(tmp_path, failing)
    assert done.stdout.split("\n")[:-1] == [f"ran {tool}" for tool in TOOLS]
    assert done.returncode == (1 if failing else 0)
    assert {tool for tool, told in TOOLS.items() if told in done.stderr} == failing
    assert ("To fix it:" in done.stderr) == bool(failing)
