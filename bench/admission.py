"""How many admissions and settlements a second the SQLite store takes, from one process or from several.

With `--processes N`, each of N processes admits and settles on the same file for some seconds; the callers
pause at random between the two, as an upstream call does, if `--pause` says so (milliseconds at most).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kimi_gateway.accounts.values import Admission, Grant, Limits, NewKey, Usage
from kimi_gateway.storage.sqlite.store import SqliteStore

NOW = 1_800_000_000
WIDE = Limits(10**9, 10**9, 10**9)


async def at_once(callers: int, count: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Calls a second when `callers` take the next number as soon as their last call is answered."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start)


async def measure(path: Path, callers: int, count: int, keys: int) -> None:
    store = SqliteStore(path)
    account = await store.create_account("bench", Grant(count), NOW)
    own = Limits(count, count, count)
    held = [await store.create_key(NewKey(f"{n}", account.id, limits=own), NOW) for n in range(keys)]
    admitted: list[Admission] = []

    async def admit(number: int) -> None:
        admitted.append(await store.admit(f"r{number}", held[number % keys], 1, NOW + 60, NOW))

    async def settle(number: int) -> None:
        await store.settle(admitted[number], "kimi-k2", Usage(1000, 100), NOW)

    for name, call in (("admit", admit), ("settle", settle)):
        print(f"{name:8}{await at_once(callers, count, call):10,.0f} a second, {callers} callers")
    await store.close()


async def opened(path: Path, keys: int) -> None:
    store = SqliteStore(path)
    account = await store.create_account("bench", Grant(10**9), NOW)
    for number in range(keys):
        await store.create_key(NewKey(f"{number}", account.id, limits=WIDE), NOW)
    await store.close()


async def work(path: Path, given: argparse.Namespace) -> None:
    """One process's share; it begins when a line comes. Prints how often each step waited how long."""
    store = SqliteStore(path, lock_timeout=30.0)
    held = [key for number in range(given.keys) if (key := await store.find_key(f"{number}"))]
    waits: list[float] = []
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + given.seconds

    async def pause() -> None:
        if given.pause:
            await asyncio.sleep(random.uniform(0, given.pause / 1000))  # noqa: S311

    async def caller(name: str) -> None:
        number = 0
        while (start := time.perf_counter()) < end:
            number += 1
            key = held[number % len(held)]
            admission = await store.admit(f"{name}-{number}", key, 1, NOW + 60, NOW)
            waits.append(time.perf_counter() - start)
            await pause()
            start = time.perf_counter()
            await store.settle(admission, "kimi-k2", Usage(1000, 100), NOW)
            waits.append(time.perf_counter() - start)
            await pause()

    await asyncio.gather(*(caller(f"{given.name}-{number}") for number in range(given.callers)))
    await store.close()
    waits.sort()
    of = {name: waits[int((len(waits) - 1) * part)] * 1000 for name, part in PARTS.items()}
    print(json.dumps({"requests": len(waits) // 2, **of}), flush=True)


PARTS = {"p50": 0.5, "p99": 0.99, "longest": 1.0}


def side_by_side(path: Path, given: argparse.Namespace) -> None:
    asyncio.run(opened(path, given.keys))
    shape = [f"--{name}={getattr(given, name)}" for name in ("callers", "keys", "seconds", "pause")]
    command = [sys.executable, __file__, "--file", str(path), *shape]
    running = [
        subprocess.Popen(  # noqa: S603 - this file
            [*command, f"--name=p{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(given.processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
            process.stdout.readline()
        for process in running:
            assert process.stdin is not None  # noqa: S101
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    print(
        f"{sum(each['requests'] for each in found) / given.seconds:,.0f} admissions with settlements a second"
    )
    for each in found:
        waits = ", ".join(f"{name} {each[name]:.1f}" for name in PARTS)
        print(f"  one process {each['requests'] / given.seconds:,.0f}; a step waits, in ms: {waits}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64, help="of each process")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.keys = max(1, given.keys)
    if given.file is not None:
        return asyncio.run(work(given.file, given))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.db")
        if given.processes:
            return side_by_side(path, given)
        asyncio.run(measure(path, given.callers, min(given.count, 200_000), given.keys))


if __name__ == "__main__":
    main()
