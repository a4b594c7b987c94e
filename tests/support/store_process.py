"""One of several processes on one SQLite file: `store_process.py FILE STEP NAME COUNT`, started by the tests.

It waits for a line on standard input, so that all begin together, and prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path

from kimi_gateway.accounts.store import Refused, StoreDown
from kimi_gateway.accounts.values import Grant, Usage
from kimi_gateway.storage.sqlite.store import SqliteStore

NOW, LEASE = 1_800_000_000, 660


async def attempts(store: SqliteStore, name: str, count: int, failing: float) -> Counter[str]:
    """`failing` is the share of admitted requests that fail and are released."""
    key = await store.find_key("digest")
    assert key is not None
    outcomes: Counter[str] = Counter()
    fails = random.Random(name)

    async def attempt(number: int) -> None:
        try:
            admission = await store.admit(f"{name}-{number}", key, 1, NOW + LEASE, NOW)
        except Refused as refused:
            outcomes[type(refused).__name__] += 1
            return
        failed = fails.random() < failing
        if failed:
            done = await store.release(admission, "m", True, NOW)
        else:
            done = await store.settle(admission, "m", Usage(1, 1), NOW)
        assert done
        outcomes["failed" if failed else "succeeded"] += 1

    for start in range(0, count, 8):
        await asyncio.gather(*(attempt(number) for number in range(start, min(start + 8, count))))
    return outcomes


async def reserve_and_hang(store: SqliteStore, name: str) -> None:
    key = await store.find_key("digest")
    assert key is not None
    await store.admit(name, key, 1, NOW + LEASE, NOW)
    print("reserved", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def fill_disk(store: SqliteStore) -> Counter[str]:
    """Writes until files may not grow any more, then reads once they may."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    try:
        for number in range(1_000):
            await store.create_account(f"{number}" * 1_000, Grant(1), NOW)
    except StoreDown:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        account = await store.create_account("after", Grant(1), NOW)
        return Counter(down=1, credits=account.credits)
    return Counter(down=0)


async def main(path: str, step: str, name: str, count: str) -> None:
    store = SqliteStore(Path(path), lock_timeout=30.0)
    await asyncio.to_thread(sys.stdin.readline)
    match step:
        case "attempts":
            print(json.dumps(await attempts(store, name, int(count), failing=0.0)))
        case "failing-attempts":
            print(json.dumps(await attempts(store, name, int(count), failing=0.4)))
        case "create":
            print(json.dumps({"keys": len((await store.create_account(name, None, NOW)).keys)}))
        case "reserve":
            await reserve_and_hang(store, name)
        case "fill-disk":
            print(json.dumps(await fill_disk(store)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
