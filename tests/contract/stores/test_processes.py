"""SQLite across real processes: counts are exact, and a killed process loses nobody's credit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kimi_gateway.accounts.values import Account, Grant, Limits, NewKey, UsageRow
from kimi_gateway.storage.sqlite.store import SqliteStore
from support import ROOT
from support.store_process import LEASE, NOW

SCRIPT = ROOT / "tests" / "support" / "store_process.py"
WIDE = Limits(10_000, 10_000, 10_000)


@contextmanager
def started(path: Path, step: str, name: str, count: int = 0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SCRIPT), str(path), step, name, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def outcomes(path: Path, step: str, processes: int, attempts: int = 0) -> Counter[str]:
    """The sum of what so many processes report, which share `attempts` and begin together."""
    total: Counter[str] = Counter()
    with ExitStack() as stack:
        running = []
        for number in range(processes):
            share = len(range(number, attempts, processes))
            running.append(stack.enter_context(started(path, step, f"p{number}", share)))
        answers = []
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in running:
            answers.append(process.communicate()[0])
            assert process.returncode == 0
    for answer in answers:
        total.update(json.loads(answer))
    return total


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


def open_account(path: Path, credits: Grant | None, limits: Limits) -> None:
    async def run() -> None:
        store = SqliteStore(path)
        account = await store.create_account("shared", credits, NOW)
        await store.create_key(NewKey("digest", account.id, limits=limits), NOW)
        await store.close()

    asyncio.run(run())


def look(path: Path, now: int = NOW) -> tuple[Account, list[UsageRow]]:
    async def run() -> tuple[Account, list[UsageRow]]:
        store = SqliteStore(path)
        seen = await store.account("shared", now), await store.usage(0)
        await store.close()
        return seen

    return asyncio.run(run())


def test_four_processes_share_one_limit_exactly(path: Path) -> None:
    open_account(path, None, Limits(minute=60))
    counted = outcomes(path, "attempts", processes=4, attempts=500)
    assert counted == {"succeeded": 60, "WindowFull": 440}


def test_four_processes_share_one_balance_exactly(path: Path) -> None:
    open_account(path, Grant(100), WIDE)
    counted = outcomes(path, "failing-attempts", processes=4, attempts=500)
    account, (usage,) = look(path)
    assert sum(counted.values()) == 500
    assert counted["failed"] > 0
    assert (account.consumed, account.reserved) == (counted["succeeded"], 0)
    assert account.credits + account.consumed == 100
    assert (usage.requests, usage.errors) == (counted["succeeded"], counted["failed"])
    assert (usage.input, usage.credits) == (counted["succeeded"], counted["succeeded"])


def test_the_credit_of_a_killed_process_returns_when_its_lease_ends(path: Path) -> None:
    open_account(path, Grant(1), WIDE)
    with started(path, "reserve", "lost") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "reserved\n"
        process.kill()
        process.wait()
    account, _ = look(path, NOW + LEASE - 1)
    assert (account.credits, account.reserved) == (1, 1)
    account, _ = look(path, NOW + LEASE)
    assert (account.credits, account.reserved, account.consumed) == (1, 0, 0)


def test_no_credit_and_no_money_drifts_if_processes_are_killed_at_any_moment() -> None:
    command = [sys.executable, str(ROOT / "bench" / "kills.py"), "--kills", "3", "--processes", "2"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(told.stdout)
    assert found["settled"] > 0
    assert {name for name, value in found.items() if value} <= {"kills", "settled", "failed", "leases lost"}


def test_four_processes_may_create_the_file_at_once(path: Path) -> None:
    assert outcomes(path, "create", processes=4) == {"keys": 0}


def test_a_full_disk_is_a_store_that_is_down_until_there_is_room(path: Path) -> None:
    assert outcomes(path, "fill-disk", processes=1) == {"down": 1, "credits": 1}
