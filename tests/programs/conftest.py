"""A stage for each test, and a file with what came of them (`--result FILE`) for docs/clients.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import loopback
from programs.catalog import ROOT
from programs.stage import CREDITS, Stage
from programs.tap import Tap
from support.server_process import ServerProcess
from upstream import ScriptedUpstream

NAMES = pytest.StashKey[loopback.NameServer]()
CALLS = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--result", type=Path)


def pytest_sessionstart(session: pytest.Session) -> None:
    if not loopback.alone():
        pytest.exit("these programs are kept off the network: run scripts/clients", 2)
    loopback.bring_up()
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    session.config.stash[NAMES] = loopback.NameServer(factory.mktemp("names"))
    session.config.stash[CALLS] = set()


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    folder = request.path.parent
    modules = folder / "node_modules"
    installed = modules if modules.exists() else ROOT / ".clients" / folder.name / "bin"
    with (
        ScriptedUpstream() as upstream,
        ServerProcess(tmp_path, upstream.url) as server,
        Tap(int(server.url.rpartition(":")[2])) as tap,
    ):
        stage = Stage(installed, home, work, upstream, server, tap, server.key(CREDITS))
        yield stage
        _keep(request.path.parent.name, stage)
        request.config.stash[CALLS] |= set(stage.calls())


def _keep(name: str, stage: Stage) -> None:
    """What the program sent, and what of that the upstream got, to be read by a person."""
    sent = [[request.method, request.target, request.headers, request.body] for request in stage.sent]
    asked = [[request.method, request.path, request.body] for request in stage.asked]
    lines = json.dumps({"sent": sent, "asked": asked}, ensure_ascii=False, indent=1)
    folder = ROOT / ".clients"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.{stage.work.parent.name}.json").write_text(lines)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _held[report.nodeid] = _held.get(report.nodeid, True) and report.passed


_held: dict[str, bool] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("--result")
    if file and _held:
        tests = {_sentence(nodeid): held for nodeid, held in _held.items()}
        stash = session.config.stash
        result = {
            "tests": tests,
            "calls": sorted(stash[CALLS]),
            "names": sorted(map(_host, stash[NAMES].asked)),
        }
        file.write_text(json.dumps(result))


def _sentence(nodeid: str) -> str:
    return nodeid.partition("::test_")[2].replace("_", " ").replace("[", " (").replace("]", ")")


def _host(name: str) -> str:
    return "a package registry" if name.startswith(("registry.", "pypi.", "files.")) else f"`{name}`"
