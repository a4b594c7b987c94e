"""The command line, run on a data folder of its own, in an environment without settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kimi_gateway.cli import main
from support.command import Cli


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("KIMI", "MOONSHOT")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("KIMI_GATEWAY_DATA", str(folder))
    return folder


@pytest.fixture
def cli(data: Path) -> Cli:
    def run(*words: object, typed: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], input=typed, catch_exceptions=False)

    return run


@pytest.fixture
def ask(cli: Cli) -> Callable[..., Any]:
    """The document that a command prints with --json."""

    def run(*words: object, typed: str | None = None) -> Any:
        result = cli(*words, "--json", typed=typed)
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run
