"""How many admissions and settlements a second the SQLite store takes from one process."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kimi_gateway.accounts.values import Admission, Grant, Limits, NewKey, Usage
from kimi_gateway.storage.sqlite.store import SqliteStore

NOW = 1_800_000_000


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.db")
        asyncio.run(measure(path, arguments.callers, min(arguments.count, 200_000), max(1, arguments.keys)))
