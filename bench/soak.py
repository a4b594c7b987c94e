"""The soak: mixed load with faults on a gateway process for half an hour, then the search for what leaked.

Ends by itself, with exit code 1 where something leaked, was charged wrongly or failed. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import targets
from load import Connection, chat, connect, request
from processes import NotStarted, Process, shares, unwind_on_signals
from report import number, table
from targets import Target
from traffic import FLOWS, Tally, drive

IDLE_CONNECTIONS = 35.0  # seconds until the gateway lets go of upstream connections that nobody uses
STEEP, GROWN = 6.0, 3.0  # MiB an hour and MiB in all: memory leaks where it does both
SETTLED = 600.0  # seconds before which pools, caches and the cycle collector are still filling the memory
MORE_FILES = 4  # descriptors that may be open after the load and were not before
SETTINGS = {"KIMI_GATEWAY_IDLE_TIMEOUT": "2", "KIMI_GATEWAY_DRAIN": "2"}


@dataclass(frozen=True, slots=True)
class Sample:
    seconds: float
    rss: float
    files: int
    sockets: int
    threads: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger's file says."""

    leases: int
    reserved: int
    consumed: int
    requests: int
    errors: int


@dataclass(frozen=True, slots=True)
class Outcome:
    samples: list[Sample]
    before: Sample
    after: Sample
    books: Books
    tally: Tally
    crashes: int

    @property
    def late(self) -> list[Sample]:
        """Past the first quarter, in which pools, caches and arenas fill."""
        end = self.samples[-1].seconds
        return [sample for sample in self.samples if sample.seconds >= end / 4]

    @property
    def slope(self) -> float:
        """MiB an hour, by least squares."""
        late = self.late
        if len(late) < 3:
            return 0.0
        hours = [sample.seconds / 3600 for sample in late]
        return statistics.linear_regression(hours, [sample.rss for sample in late]).slope

    @property
    def grown(self) -> float:
        late = self.late
        return self.slope * (late[-1].seconds - late[0].seconds) / 3600

    @property
    def long_enough(self) -> bool:
        return self.samples[-1].seconds >= SETTLED

    def faults(self) -> list[str]:
        found = {
            "memory grows": self.long_enough and self.slope > STEEP and self.grown > GROWN,
            "file descriptors are left": self.after.files > self.before.files + MORE_FILES,
            "threads are left": self.after.threads > self.before.threads + 1,
            "leases are left": self.books.leases != 0 or self.books.reserved != 0,
            "credits consumed are not the answers given": self.books.consumed != self.tally.charged,
            "requests in the ledger are not the answers given": self.books.requests != self.tally.charged,
            "the gateway crashed in a request": self.crashes > 0,
            "healthy requests failed": self.tally.failed > 0,
        }
        return [fault for fault, true in found.items() if true]


def sample(process: Process, start: float) -> Sample:
    files, sockets = process.files()
    return Sample(time.monotonic() - start, process.rss(), files, sockets, process.threads())


def books(file: Path) -> Books:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        leases, reserved = db.execute("SELECT count(*), coalesce(sum(cost), 0) FROM leases").fetchone()
        (consumed,) = db.execute("SELECT coalesce(sum(consumed), 0) FROM accounts").fetchone()
        query = "SELECT coalesce(sum(requests), 0), coalesce(sum(errors), 0) FROM usage"
        return Books(leases, reserved, consumed, *db.execute(query).fetchone())


async def soak(target: Target, process: Process, minutes: float, seed: int) -> Outcome:
    warm = Tally()
    start = time.monotonic()
    await _one(target, warm)
    before = sample(process, start)
    samples: list[Sample] = []
    watch = asyncio.create_task(_watch(process, start, samples, max(1.0, minutes * 60 / 360)))
    tally = await drive(target.port, target.key, minutes * 60, seed)
    samples.append(sample(process, start))
    watch.cancel()
    await asyncio.sleep(IDLE_CONNECTIONS)
    await _one(target, tally)  # the pool drops what is too old when it is used again
    await asyncio.sleep(1)
    tally.charged += warm.charged
    crashes = target.log.read_text(errors="replace").count('"event": "crash"')
    file = Path(target.environ["KIMI_GATEWAY_DATA"], "gateway.sqlite3")
    return Outcome(samples, before, sample(process, start), books(file), tally, crashes)


async def _watch(process: Process, start: float, samples: list[Sample], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        samples.append(sample(process, start))


async def _one(target: Target, tally: Tally) -> None:
    """One short question on a connection of its own."""
    connection: Connection = await connect(target.port)
    answer = await connection.ask(request(target.port, target.key, chat({"chunks": 4}, False)))
    connection.close()
    if answer.status != 200:
        raise NotStarted(
            f"a short question got {answer.status} {answer.fault}: {target.log.read_text()[-2000:]}"
        )
    tally.charged += 1
    await asyncio.sleep(0.5)


def markdown(outcome: Outcome, minutes: float) -> str:
    before, after, peak = outcome.before, outcome.after, max(each.rss for each in outcome.samples)
    flows = [
        [flow.name, ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcome.tally.of(flow).items()))]
        for flow in FLOWS
    ]
    books, grown = outcome.books, outcome.grown
    found = [
        ["RSS before · peak · after, MiB", f"{before.rss:.1f} · {peak:.1f} · {after.rss:.1f}"],
        ["RSS slope after the first quarter", f"{number(outcome.slope)} MiB/h ({grown:+.2f} MiB)"],
        ["file descriptors before · after", f"{before.files} · {after.files}"],
        ["sockets before · after", f"{before.sockets} · {after.sockets}"],
        ["threads before · after", f"{before.threads} · {after.threads}"],
        ["leases left, credits reserved", f"{books.leases}, {books.reserved}"],
        ["credits consumed · answers to be charged", f"{books.consumed:,} · {outcome.tally.charged:,}"],
        ["requests · errors in the ledger", f"{books.requests:,} · {books.errors:,}"],
        ["crashes in the log", f"{outcome.crashes}"],
    ]
    verdict = "; ".join(outcome.faults()) or "nothing leaked, every credit accounted for"
    if not outcome.long_enough:
        verdict += " (too short to judge the memory)"
    head = f"{datetime.date.today()}, {minutes:g} minutes: {verdict}."
    rows = [*table(["", "found"], found), "", *table(["callers", "outcomes"], flows)]
    return "\n".join([head, "", *rows]) + "\n"


def _argument() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the samples too, as a last line")
    parsed = parser.parse_args()
    parsed.minutes = min(max(parsed.minutes, 0.1), 24 * 60)
    return parsed


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("The soak reads /proc: Linux only.")
    chosen = _argument()
    unwind_on_signals()
    core, others = shares()
    with tempfile.TemporaryDirectory(prefix="kimi-soak-") as folder:
        home = Path(folder)
        emulator = targets.emulator(home)
        tokens = ",".join(f"sk-bench-token-{number}" for number in range(5))
        with emulator.start(others) as upstream:
            upstream.wait_for(emulator.port)
            url = f"http://127.0.0.1:{emulator.port}/v1"
            gateway = targets.gateway(home, url, tokens=tokens, **SETTINGS)
            with gateway.start(core) as process:
                process.wait_for(gateway.port)
                outcome = asyncio.run(soak(gateway, process, chosen.minutes, chosen.seed))
    print(markdown(outcome, chosen.minutes))
    if chosen.json:
        print(
            json.dumps([[round(each.seconds, 1), round(each.rss, 2), each.files] for each in outcome.samples])
        )
    raise SystemExit(1 if outcome.faults() else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except NotStarted as error:
        raise SystemExit(f"{error}") from None
