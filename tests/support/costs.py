"""Where the suite's time goes: `scripts/test-costs` prints the CPU time of each file.

CPU time is `getrusage` of the process that runs a test, its threads and the processes that it waited for.
Unlike the time of a clock it is nearly the same on a busy machine.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = "SUITE_COSTS"  # where the processes of one run write what they spent
SHOWN = 40  # files

Spent = tuple[float, float, float]  # seconds: by the clock, of CPU, of CPU in child processes


def spent() -> Spent:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime
    return time.monotonic(), *cpu


def note(name: str, since: Spent) -> None:
    passed = [after - before for before, after in zip(since, spent(), strict=True)]
    with Path(os.environ[FOLDER], f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps([name, *passed]) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="suite-costs-")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    before = spent()
    yield
    note("(collection, once for each process)", before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = spent()
    result = yield
    note(item.nodeid.partition("::")[0], before)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    costs: dict[str, list[float]] = defaultdict(lambda: [0.0] * 3)
    for file in Path(os.environ[FOLDER]).iterdir():
        for line in file.read_text().splitlines():
            name, *passed = json.loads(line)
            costs[name] = [sum(pair) for pair in zip(costs[name], passed, strict=True)]
    rows = sorted(costs.items(), key=lambda row: -row[1][1] - row[1][2])
    rows = [("(all)", [sum(column) for column in zip(*costs.values(), strict=True)]), *rows[:SHOWN]]
    terminalreporter.section("CPU seconds, of them in child processes, seconds by the clock")
    for name, (clock, own, children) in rows:
        terminalreporter.write_line(f"{own + children:8.1f} {children:8.1f} {clock:8.1f}  {name}")
