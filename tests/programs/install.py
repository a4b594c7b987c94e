"""Each program from its lock, once: of Python into `.clients/NAME`, of Node beside the lock."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from programs.catalog import HERE, PROGRAMS, ROOT
from support import npm


def install(name: str) -> None:
    """Raises CalledProcessError, LookupError for a Python that is not there."""
    folder = HERE / name
    if (folder / "package-lock.json").exists():
        npm.install(folder)
    else:
        environ = os.environ | {"PYTHON": _python(PROGRAMS[name].python)}
        subprocess.run([ROOT / "scripts/setup", f"tests/programs/{name}"], env=environ, check=True)


def _python(oldest: str) -> str:
    for candidate in _candidates():
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.returncode == 0 and _number(asked.stdout) >= _number(oldest):
            return candidate
    raise LookupError(f"Python {oldest} or newer is needed")


def _candidates() -> Iterator[str]:
    for name in ("python3", "python3.13", "python3.14"):
        if found := shutil.which(name):
            yield found
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from (str(path) for path in sorted(versions.glob("3.1[3-9].*/bin/python3")))


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.strip().split(".")))
