"""The artefact: what is in it, what is not, and that it is always the same."""

from __future__ import annotations

import importlib.util
import marshal
import os
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support import built
from support.built import MINOR, ROOT, artefact, task_root


@pytest.fixture(scope="module")
def entries() -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(artefact()) as archive:
        return {entry.filename: entry for entry in archive.infolist()}


def test_it_holds_handlers_package_dependencies_and_the_wrapper(entries: dict[str, zipfile.ZipInfo]) -> None:
    names = set(entries)
    assert {"stream", "handlers/chat_completions.py", "kimi_gateway/flow/ask.py"} <= names
    assert {"httptools/__init__.py", "aws_lambda_powertools/__init__.py"} <= names
    for left_out in ("kimi_gateway/cli/", "kimi_gateway/edge/home/asgi.py", "fastapi/", "boto3/", "uvicorn/"):
        assert not [name for name in names if name.startswith(left_out)]
    assert not [name for name in names if name.endswith(("/RECORD", "/INSTALLER", ".pyi", "direct_url.json"))]


def test_it_is_far_below_what_it_may_have(entries: dict[str, zipfile.ZipInfo]) -> None:
    assert artefact().stat().st_size < 10 * 2**20


def test_only_the_wrapper_can_be_executed_and_no_time_is_told(entries: dict[str, zipfile.ZipInfo]) -> None:
    modes = {name: entry.external_attr >> 16 for name, entry in entries.items()}
    assert modes.pop("stream") == 0o100755
    assert set(modes.values()) == {0o100644}
    assert {entry.date_time for entry in entries.values()} == {(1980, 1, 1, 0, 0, 0)}
    assert list(entries) == sorted(entries)


def test_every_module_has_bytecode_that_is_trusted_unchecked(entries: dict[str, zipfile.ZipInfo]) -> None:
    tag = sys.implementation.cache_tag
    with zipfile.ZipFile(artefact()) as archive:
        for name in entries:
            if name.endswith(".py"):
                folder, _, module = name.rpartition("/")
                cached = f"{folder}/__pycache__/".lstrip("/") + f"{module[:-3]}.{tag}.pyc"
                magic, flags = struct.unpack("<4sI", archive.read(cached)[:8])
                assert magic == importlib.util.MAGIC_NUMBER
                assert flags == 0b01  # hash-based, not checked


def test_the_bytecode_is_what_is_loaded() -> None:
    code = "import kimi_gateway.flow.ask as g; print(g.__cached__)"
    environ = {**os.environ, "PYTHONPATH": str(task_root()), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True)
    cached = Path(done.stdout.strip())
    assert cached.is_relative_to(task_root())
    compiled = marshal.loads(cached.read_bytes()[16:])  # noqa: S302
    assert compiled.co_filename == "/var/task/kimi_gateway/flow/ask.py"


def elsewhere(tmp_path: Path, minor: str) -> Path:
    """Another checkout, with the wheels that are there as if they were for that Python."""
    clone = tmp_path / "elsewhere"
    for name in ("functions", "infra", "requirements", "scripts"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("*.pyc"))
    artefact()
    wheels = ROOT / "build" / f"{built.ARCH}-{MINOR}" / "wheels"
    shutil.copytree(wheels, clone / "build" / f"{built.ARCH}-{minor}" / "wheels")
    return clone


def test_another_checkout_gives_the_same_bytes(tmp_path: Path) -> None:
    built.build(tmp_path / "again.zip", elsewhere(tmp_path, MINOR))
    assert (tmp_path / "again.zip").read_bytes() == artefact().read_bytes()


def test_without_an_interpreter_of_that_minor_the_bundle_has_no_bytecode_and_says_what_that_costs(
    tmp_path: Path,
) -> None:
    clone = elsewhere(tmp_path, "3.99")
    target = tmp_path / "bundle.zip"
    command = [sys.executable, str(clone / "infra" / "build.py"), "--arch", built.ARCH, "--python", "3.99"]
    done = subprocess.run([*command, "--output", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no bytecode" in done.stdout
    for told in ("needs a Python 3.99", "PYTHON399=", "each cold start compiles", "docs/benchmarks.md"):
        assert told in done.stderr
    with zipfile.ZipFile(target) as without, zipfile.ZipFile(artefact()) as whole:
        assert without.namelist() == [name for name in whole.namelist() if not name.endswith(".pyc")]
        without.extractall(tmp_path / "task")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "task"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-S", "-c", "import handlers.chat_completions"], env=environ, check=True)


def test_the_machines_architecture_is_known() -> None:
    assert built.ARCH in ("arm64", "x86_64"), platform.machine()
