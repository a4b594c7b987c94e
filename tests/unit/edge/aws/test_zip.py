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

from kimi_gateway.endpoints.pages import pages
from support import built
from support.built import MINOR, ROOT, artefact, task_root


@pytest.fixture(scope="module")
def entries() -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(artefact()) as archive:
        return {entry.filename: entry for entry in archive.infolist()}


# What the lock file brings along; a new name here makes each cold start unpack more.
LIBRARIES = {
    "annotated_types", "anyio", "aws_lambda_powertools", "h11", "httpcore2", "httptools", "httpx2", "idna",
    "jmespath", "multipart", "pydantic", "pydantic_core", "python_multipart",
    "truststore", "typing_extensions", "typing_inspection",
}  # fmt: skip
LOADED = {"aws_lambda_powertools", "httptools", "jmespath", "typing_extensions"}  # of them, at a start
LARGEST = 9 * 2**20  # bytes
HANDLERS = sorted(file.stem for file in (ROOT / "functions" / "handlers").glob("[!_]*.py"))


def test_its_modules_are_those_of_the_package_but_for_the_folders_of_home(
    entries: dict[str, zipfile.ZipInfo],
) -> None:
    functions = ROOT / "functions"
    files = [file.relative_to(functions).as_posix() for file in functions.rglob("*.py")]
    observe = ("alerts.py", "exposition.py", "otlp/", "shared.py", "terminal.py")
    parts = (
        "cli/",
        "edge/home/",
        *(f"observe/{name}" for name in observe),
        "private_file.py",
        "providers/kimi_web/",
        *(f"storage/{store}/moving.py" for store in ("dynamodb", "sqlite")),
    )
    home = tuple(f"kimi_gateway/{part}" for part in parts)
    assert all([name for name in files if name.startswith(folder)] for folder in home)
    ours = {name for name in entries if name.startswith(("kimi_gateway/", "handlers/"))}
    kept = {name for name in files if not name.startswith(home)}
    static = {file.relative_to(functions).as_posix() for file in pages.FOLDER.rglob("*") if file.is_file()}
    assert {name for name in ours if not name.endswith(".pyc")} == kept | static


def test_what_is_not_ours_is_listed_here(entries: dict[str, zipfile.ZipInfo]) -> None:
    tops = {name.partition("/")[0].removesuffix(".py") for name in entries}
    named = {top for top in tops if not top.endswith(".dist-info")}
    assert named == LIBRARIES | {"stream", "handlers", "kimi_gateway", "__pycache__"}
    needless = ("/RECORD", "/INSTALLER", ".pyi", "direct_url.json")
    assert not [name for name in entries if name.endswith(needless)]


START = """
import asyncio, importlib, logging, os, sys
before = set(sys.modules)
os.environ.update(
    KIMI_GATEWAY_TABLE="kimi", KIMI_GATEWAY_SECRET="kimi", AWS_REGION="eu-central-1",
    AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
)
handler = importlib.import_module("handlers." + sys.argv[1]).handler
logging.disable()
asyncio.run(handler.start())
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("name", HANDLERS)
def test_each_handler_starts_from_the_zip_alone_and_loads_no_other_library(name: str) -> None:
    """Without the environment's packages, and with nothing at the address of the store."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(task_root()), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", START, name], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    tops = {module.partition(".")[0] for module in loaded}
    assert tops & LIBRARIES == LOADED
    assert [module for module in loaded if module.startswith("handlers.")] == [f"handlers.{name}"]
    assert ("kimi_gateway.storage.dynamodb.store" in loaded) == (name != "pages")
    assert not {"sqlite3", "kimi_gateway.storage.sqlite.store"} & set(loaded)


def test_it_is_no_larger_than_its_bound() -> None:
    assert artefact().stat().st_size <= LARGEST


def test_only_the_wrapper_can_be_executed_and_no_time_is_reported(
    entries: dict[str, zipfile.ZipInfo],
) -> None:
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
