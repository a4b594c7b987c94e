"""The template as AWS would read it, from the SAM command line's own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from built import artefact
from infra.cloud import BUCKET, CREDENTIALS, Cloud

ROOT = Path(__file__).parents[2]
Sam = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sam() -> Sam:
    """Runs a program of .venv-sam, which is installed at first; fails the test where that fails."""
    done = subprocess.run(["scripts/setup", "sam"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_"))}
    environ |= {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0", "PYTHONWARNINGS": "ignore"}

    def run(program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / ".venv-sam" / "bin" / program, *words], cwd=ROOT, env=environ | more,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def read_template(sam: Sam) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        done = sam("python", str(Path(__file__).with_name("sam_transform.py")), str(path))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


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
    """What `sam package` made: the file, and that through the SAM transform. `url` is of the S3 it is in."""

    file: Path
    template: Any
    url: str


@pytest.fixture(scope="session")
def package(
    sam: Sam, read_template: Callable[[Path], Any], moto_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Package:
    """Of the built artefact, to a bucket of moto's."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("template.yaml", "infra/alarms.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "build").mkdir()
    shutil.copy(artefact(), folder / "build" / "gateway.zip")
    Cloud.at(moto_url).client("s3").create_bucket(Bucket=BUCKET)
    packaged = folder / "packaged.yaml"
    done = sam(
        "sam", "package", "--template-file", str(folder / "template.yaml"), "--s3-bucket", BUCKET,
        "--output-template-file", str(packaged), AWS_ENDPOINT_URL=moto_url, **CREDENTIALS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Package(packaged, read_template(packaged)["transformed"], moto_url)
