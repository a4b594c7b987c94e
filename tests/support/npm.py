"""Packages of Node for the tests, from a committed lock."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path


def install(folder: Path) -> Path:
    """`node_modules` beside a package-lock.json: once, also where several test processes begin together.
    Nothing that a package brings is run. Raises CalledProcessError.
    """
    lock, modules = folder / "package-lock.json", folder / "node_modules"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = modules / ".lock-installed"
        if not done.exists() or done.read_text() != lock.read_text():
            quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=5"]
            subprocess.run(
                ["npm", "ci", "--ignore-scripts", *quiet], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
            done.write_text(lock.read_text())
    return modules
