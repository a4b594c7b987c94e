"""The template as AWS would read it, from the SAM command line's own environment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.cloud import BUCKET, CREDENTIALS, Cloud
from support import ROOT
from support.built import ARCH, MINOR, artefact, one_at_a_time, sam_environment

Sam = Callable[..., subprocess.CompletedProcess[str]]
PACKAGED, UPLOADED = "packaged.yaml", "uploaded"  # in the clone


@pytest.fixture(scope="session")
def sam() -> Sam:
    """Runs a program of .venv-sam, which is installed at first; fails the test where that fails."""
    programs = sam_environment() / "bin"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_"))}
    environ |= {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0", "PYTHONWARNINGS": "ignore"}

    def run(
        program: str, *words: str, cwd: Path = ROOT, typed: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / program, *words], cwd=cwd, env=environ | more,
            input=typed, capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def read_template(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Any]:
    """Each template is read once for all workers: SAM's own code takes seconds to load."""
    kept = shared(tmp_path_factory)

    def read(path: Path) -> Any:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        answer = kept / f"template-{digest}.json"
        with one_at_a_time(digest):
            if not answer.exists():
                done = sam("python", str(Path(__file__).with_name("sam_transform.py")), str(path))
                assert done.returncode == 0, done.stderr
                answer.write_text(done.stdout)
        return json.loads(answer.read_text())

    return read


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def raw(read_template: Callable[[Path], Any]) -> Any:
    """template.yaml, transformed in `template`."""
    return read_template(ROOT / "template.yaml")


@pytest.fixture(scope="session")
def template(raw: Any) -> Any:
    return raw["transformed"]


@pytest.fixture(scope="session")
def alarms(read_template: Callable[[Path], Any]) -> Any:
    return read_template(ROOT / "infra" / "alarms.yaml")["raw"]


@dataclass(frozen=True)
class Package:
    """What `sam build` and `sam package` made: the file, and that through the SAM transform. `url` is of the
    S3 that it is in, `clone` the folder of sources."""

    file: Path
    template: Any
    url: str
    clone: Path


def cloned(folder: Path) -> Path:
    """The project's files as git has them, and the wheels that were fetched before."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in found.strip("\0").split("\0"):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    wheels = f"build/{ARCH}-{MINOR}/wheels"
    artefact()
    shutil.copytree(ROOT / wheels, folder / wheels)
    return folder


@pytest.fixture(scope="session")
def package(
    sam: Sam, read_template: Callable[[Path], Any], moto_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Package:
    """Of a fresh clone, to a bucket of moto's. Built for this machine, since its functions run here, and once
    for all workers: the others get its uploads into a moto of their own."""
    built = shared(tmp_path_factory) / "sam-build"
    bucket = Cloud.at(moto_url).client("s3")
    bucket.create_bucket(Bucket=BUCKET)
    with one_at_a_time("package"):
        if built.exists():
            for file in (built / UPLOADED).iterdir():
                bucket.put_object(Bucket=BUCKET, Key=file.name, Body=file.read_bytes())
        else:
            fresh = cloned(tmp_path_factory.mktemp("clone"))
            packaged(sam, fresh, moto_url)
            (fresh / UPLOADED).mkdir()
            for each in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]:
                bucket.download_file(BUCKET, each["Key"], str(fresh / UPLOADED / each["Key"]))
            fresh.rename(built)
    file = built / PACKAGED
    return Package(file, read_template(file)["transformed"], moto_url, built)


def packaged(sam: Sam, clone: Path, moto_url: str) -> None:
    options = {"PYTHON": sys.executable, "BUILD_OPTIONS": f"--arch {ARCH} --python {MINOR}"}
    done = sam("sam", "build", cwd=clone, **options)
    assert done.returncode == 0, done.stderr
    done = sam(
        "sam", "package", "--s3-bucket", BUCKET, "--output-template-file", PACKAGED,
        cwd=clone, AWS_ENDPOINT_URL=moto_url, **CREDENTIALS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
