"""The artefact of `scripts/build` for the interpreter that runs the tests, built once for all workers; and
the emulator of Lambda's runtime interface, which comes with the SAM command line.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from support import ROOT

FOLDER = ROOT / "build" / "tests"
ARCH = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
SOURCES = ("functions", "infra/build.py", "requirements/lambda.txt")


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Between processes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sources() -> Iterator[Path]:
    for name in SOURCES:
        place = ROOT / name
        yield from sorted(place.rglob("*")) if place.is_dir() else [place]


@cache
def artefact() -> Path:
    """The zip."""
    digest = hashlib.sha256(MINOR.encode())
    for file in _sources():
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    target = FOLDER / f"{digest.hexdigest()[:16]}.zip"
    with one_at_a_time("build"):
        if not target.exists():
            for old in FOLDER.glob("*.zip"):  # of other sources
                old.unlink()
                shutil.rmtree(old.with_suffix(""), ignore_errors=True)
            build(target)
    return target


def build(target: Path, root: Path = ROOT) -> None:
    command = ["scripts/build", "--arch", ARCH, "--python", MINOR, "--output", str(target)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def task_root() -> Path:
    """What Lambda has at /var/task."""
    zipped = artefact()
    folder = zipped.with_suffix("")
    with one_at_a_time("unpack"):
        if not folder.exists():
            with zipfile.ZipFile(zipped) as archive:
                for entry in archive.infolist():
                    archive.extract(entry, folder)
                    (folder / entry.filename).chmod(entry.external_attr >> 16)
    return folder


@cache
def sam_environment() -> Path:
    """.venv-sam, installed at first."""
    with one_at_a_time("sam"):
        done = subprocess.run(["scripts/setup", "sam"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / ".venv-sam"


@cache
def emulator() -> Path:
    (found,) = sam_environment().glob(f"lib/python3.*/site-packages/samcli/local/rapid/*-{ARCH}")
    found.chmod(0o755)
    return found
