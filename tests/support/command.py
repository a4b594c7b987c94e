"""Reading what the command line answered, and what it left on disk."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

import kimi_gateway

PROGRAM = [sys.executable, "-m", "kimi_gateway.cli"]
Cli = Callable[..., Result]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def environment() -> dict[str, str]:
    """For a process of its own, which is to run the package under test, wherever that is."""
    return os.environ | {"PYTHONPATH": str(Path(kimi_gateway.__file__).parents[1])}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fault(result: Result) -> tuple[int, str]:
    """Exit code and error code of a command with --json that failed."""
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert list(error) == ["error"]
    assert list(error["error"]) == ["message", "code"]
    return result.exit_code, error["error"]["code"]
