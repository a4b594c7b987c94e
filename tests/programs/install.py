"""Each program from its lock into `.clients/NAME`, once. Nothing that a package brings is run on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from programs.catalog import HERE, PROGRAMS, ROOT


def install(name: str) -> Path:
    """The folder with the program. Raises CalledProcessError, LookupError for a Python that is not there."""
    source, target = HERE / name, ROOT / ".clients" / name
    if (source / "requirements.txt").exists():
        environ = os.environ | {"PYTHON": _python(PROGRAMS[name].python)}
        subprocess.run([ROOT / "scripts/setup", f"tests/programs/{name}"], env=environ, check=True)
    else:
        npm_ci(source, target)
    return target


def npm_ci(source: Path, target: Path) -> None:
    """package-lock.json of `source` into `target`, where it is not there already."""
    lock, installed = source / "package-lock.json", target / "package-lock.json"
    done = target / "installed"
    if done.exists() and lock.read_bytes() == installed.read_bytes():
        return
    target.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(source / file, target)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(["npm", "ci", *quiet], cwd=target, check=True, stdout=subprocess.DEVNULL)
    done.touch()


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
