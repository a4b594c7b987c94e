"""Kills processes with SIGKILL while they admit, settle and release on one SQLite file, and looks for drift.

Each request reserves one credit and the same largest cost in the budgets of its key and its account. At the
end every lease has expired, and the books must balance exactly: credits, usage rows, budgets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from kimi_gateway.accounts.store import Refused
from kimi_gateway.accounts.values import (
    Account,
    Amount,
    Bound,
    Budget,
    Grant,
    Limits,
    NewKey,
    Usage,
    UsageRow,
)
from kimi_gateway.storage.sqlite.store import SqliteStore

NOW, LEASE = 1_800_000_000, 660
KEYS, GRANTED = 8, 10**9
WIDE = Limits(10**9, 10**9, 10**9)
MOST, BILLED, WASTED = 50, 30, 10  # micro-dollars, and as many tokens: reserved, of an answer, of a failure
BOUND = Bound(NOW, 10, 40, 40, 50, input_price=1_000_000, output_price=1_000_000)
SMALL = 20_000  # micro-dollars: the budget of the first key, which it fills
BATCH = 16  # requests of a process at one time


async def opened(path: Path) -> None:
    store = SqliteStore(path)
    account = await store.create_account("shared", Grant(GRANTED), NOW)
    await store.set_budgets(account.id, [Budget("usd", "month", 10**12)], NOW)
    for number in range(KEYS):
        budgets = (Budget("usd", "day", 10**12 if number else SMALL), Budget("tokens", "total", 10**12))
        await store.create_key(NewKey(f"d{number}", account.id, limits=WIDE, budgets=budgets), NOW)
    await store.close()


async def work(path: Path, name: str) -> None:
    """Requests until the process is killed. The first line says that it began."""
    store, chance = SqliteStore(path, lock_timeout=30.0), random.Random(name)  # noqa: S311 - not for secrets
    keys = [await store.find_key(f"d{number}") for number in range(KEYS)]

    async def request(number: int) -> None:
        key = keys[chance.randrange(KEYS)]
        if key is None:
            raise LookupError
        try:
            admission = await store.admit(f"{name}-{number}", key, 1, NOW + LEASE, NOW, BOUND)
        except Refused:
            return
        if chance.random() < 0.3:
            await store.release(admission, "m", True, NOW, Amount(WASTED, WASTED))
        else:
            await store.settle(admission, "m", Usage(1, 1, cost=BILLED), NOW, Amount(BILLED, BILLED))

    print("begun", flush=True)
    number = 0
    while True:
        await asyncio.gather(*(request(number + each) for each in range(BATCH)))
        number += BATCH


def started(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--work", str(path), "--name", name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file


def killed(path: Path, kills: int, processes: int, seconds: float, chance: random.Random) -> None:
    """So many kills; a killed process is replaced by a new one."""
    running = [started(path, f"p{number}") for number in range(processes)]
    try:
        for number in range(kills):
            at = chance.randrange(processes)
            if (begun := running[at].stdout) is not None:
                begun.readline()
            time.sleep(chance.uniform(0, seconds))
            running[at].send_signal(signal.SIGKILL)
            running[at].communicate()
            running[at] = started(path, f"p{processes + number}")
    finally:
        for process in running:
            process.kill()
            process.communicate()


async def books(path: Path) -> tuple[Account, list[UsageRow]]:
    store = SqliteStore(path)
    now = NOW + LEASE
    await store.purge(now)
    (account,) = await store.accounts(now)
    usage = await store.usage(0)
    await store.close()
    return account, usage


def checked(path: Path, kills: int) -> dict[str, int]:
    """What happened, and by how much each book is wrong."""
    with closing(sqlite3.connect(path)) as db:
        (lost,) = db.execute("SELECT count(*) FROM leases").fetchone()
        ((intact,),) = db.execute("PRAGMA integrity_check")
    account, usage = asyncio.run(books(path))
    settled, failed = sum(row.requests for row in usage), sum(row.errors for row in usage)
    due = settled * BILLED + failed * WASTED + lost * MOST
    shared = [each.amount for each in account.spent if not each.scope]
    own = [each for each in account.spent if each.scope]
    small = [each.amount for each in own if each.budget.limit == SMALL]
    return {
        "kills": kills,
        "settled": settled,
        "failed": failed,
        "leases lost": lost,
        "drift of credits": account.credits + account.consumed - GRANTED,
        "drift of reserved": account.reserved,
        "drift of consumed credits": account.consumed - settled,
        "drift of usage, credits": sum(row.credits for row in usage) - settled,
        "drift of usage, cost": sum(row.cost for row in usage) - settled * BILLED,
        "drift of the account's budget": shared[0] - due,
        "drift of the keys' budgets": sum(each.amount for each in own if each.budget.unit == "usd") - due,
        "drift of the keys' tokens": sum(each.amount for each in own if each.budget.unit == "tokens") - due,
        "above a budget": max(0, small[0] - SMALL),
        "damage of the file": int(intact != "ok"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.3, help="of work before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        asyncio.run(work(given.work, given.name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        asyncio.run(opened(path))
        killed(path, given.kills, given.processes, given.seconds, random.Random(given.seed))  # noqa: S311
        found = checked(path, given.kills)
    print(json.dumps(found, indent=1))
    wrong = [name for name, value in found.items() if name.startswith(("drift", "above", "damage")) and value]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
