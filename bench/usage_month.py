"""A month of usage summed in SQLite: 100 keys × 5 models, a row in each hour at worst.

`python bench/usage_month.py [SHARE]`: SHARE of the hours in which each key and model is used (default 1).
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from kimi_gateway.accounts.usage import DAY, HOUR, SUMMED
from kimi_gateway.storage.sqlite import database
from kimi_gateway.storage.sqlite.store import SqliteStore

KEYS, DAYS, RUNS = 100, 30, 7
MODELS = ("kimi-k2", "kimi-k2.6", "kimi-k2.7-code", "kimi-k3", "kimi-k3.1-pro")
NOW = 1_800_000_000
COLUMNS = ("hour", "account", "key", "model", *SUMMED, "last", "last_cost")


def fill(path: Path, share: float) -> int:
    chance = random.Random(1)  # noqa: S311
    counts = [3] * len(SUMMED)
    rows = [
        (hour, f"acc_{key // 4:010}", f"key_{key:010}", model, *counts, hour + 9, 20_000)
        for hour in range(NOW - DAYS * DAY, NOW, HOUR)
        for key in range(KEYS)
        for model in MODELS
        if chance.random() < share
    ]
    with closing(database.connect(path, 5)) as db:
        marks = ",".join("?" * len(COLUMNS))
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES ({marks})", rows)  # noqa: S608
        db.execute("COMMIT")
    return len(rows)


async def measure(path: Path) -> None:
    store = SqliteStore(path)
    for by in (("key",), ("model",), ("day",), ("account",), ("key", "model")):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            rows = await store.usage_sums(NOW - DAYS * DAY, by)
            times.append(time.perf_counter() - start)
        print(f"by {' and '.join(by):<14} {len(rows):>5} rows  {min(times):.3f} s")
    await store.close()


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.sqlite3"
        print(f"{fill(path, share)} rows")
        asyncio.run(measure(path))


if __name__ == "__main__":
    main()
