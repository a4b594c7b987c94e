"""The template as AWS would read it, from the SAM command line's own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
