"""scripts/setup tries again where the network fails, and makes an environment again that was moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT

# Stands for Python and its pip. It counts the installations from the lock, and fails so many of them.
PYTHON = """#!/bin/bash
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"-r requirements/serve.txt"*)
    echo x >>tries; echo "Collecting things"
    [ "$(wc -l <tries)" -gt "$FAILING" ] || { echo "the network is down"; exit 1; } ;;
esac
"""
APT = """#!/bin/bash
[ "$1" != install ] || { echo x >>"$FOLDER/tries"; [ "$(wc -l <"$FOLDER/tries")" -gt "$FAILING" ]; }
"""


def set_up(folder: Path, failing: int, *words: str, path: str) -> tuple[int, int, str]:
    """The status, the number of tries, and what was said."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", folder / "scripts" / "setup")
    environ = {"PATH": path, "PYTHON": str(folder / "bin" / "python"), "FAILING": str(failing)}
    command = [folder / "scripts" / "setup", *words]
    done = subprocess.run(command, env=environ | {"FOLDER": str(folder)}, capture_output=True, text=True)
    return done.returncode, len((folder / "tries").read_text().split()), done.stderr


def programs(folder: Path, **texts: str) -> Path:
    """A folder with programs; its `sleep` does not."""
    (folder / "bin").mkdir()
    for name, text in (texts | {"sleep": "#!/bin/sh\n"}).items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


@pytest.mark.parametrize("failing", [0, 2, 3])
def test_packages_are_fetched_in_three_tries(tmp_path: Path, failing: int) -> None:
    own = programs(tmp_path, python=PYTHON)
    (tmp_path / "requirements").mkdir()
    for name in ("requirements/serve.txt", "requirements/dev.txt", "pyproject.toml"):
        (tmp_path / name).write_text("things==1\n")
    status, tries, said = set_up(tmp_path, failing, path=f"{own}:{os.environ['PATH']}")
    assert (status, tries) == (0 if failing < 3 else 1, min(failing + 1, 3)), said
    assert len(list(tmp_path.glob(".venv/.locks/serve-*"))) == (failing < 3)
    assert ("the network is down" in said) == (failing == 3)


@pytest.mark.parametrize("change", ["none", "moved", "copied", "python gone"])
def test_an_environment_that_cannot_run_here_is_made_again(tmp_path: Path, change: str) -> None:
    """Its paths are those of the folder in which it was made, so a copy would run the first folder's code."""
    folder = tmp_path / "clone"
    own = programs(tmp_path, python=PYTHON)
    (folder / "requirements").mkdir(parents=True)
    (folder / "bin").symlink_to(own)
    for name in ("requirements/serve.txt", "requirements/dev.txt", "pyproject.toml"):
        (folder / name).write_text("things==1\n")
    path = f"{own}:{os.environ['PATH']}"
    assert set_up(folder, 0, path=path)[:2] == (0, 1)
    if change == "moved":
        folder = folder.rename(tmp_path / "other")
    elif change == "copied":
        folder = shutil.copytree(folder, tmp_path / "other", symlinks=True)
    elif change == "python gone":
        (folder / ".venv" / "bin" / "python").unlink()
    (folder / ".venv" / "old").touch()
    for _ in range(2):
        shutil.rmtree(folder / "scripts")
        status, tries, said = set_up(folder, 0, path=path)
        assert (status, tries) == (0, 1 if change == "none" else 2), said
        assert (folder / ".venv" / "old").exists() == (change == "none")


@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="for Debian's packages")
@pytest.mark.parametrize("failing", [0, 2, 3])
def test_a_program_of_debian_is_installed_in_three_tries(tmp_path: Path, failing: int) -> None:
    own = programs(tmp_path, **{"apt-get": APT, "id": "#!/bin/sh\necho 0\n"})
    for name in ("bash", "dirname", "env", "flock", "wc"):
        found = shutil.which(name)
        assert found is not None
        (own / name).symlink_to(found)
    status, tries, said = set_up(tmp_path, failing, "chromium", path=str(own))
    assert (status, tries) == (0 if failing < 3 else 1, min(failing + 1, 3)), said
