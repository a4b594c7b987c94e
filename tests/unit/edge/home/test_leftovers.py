"""When the memory of a load is given back, and what is packed and closed for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kimi_gateway.edge.home.leftovers import BLOCK, ENOUGH, FEW, LONGEST, Leftovers, Recent
from kimi_gateway.observe import RequestRecord


class Process:
    """A process whose size and requests a test sets, and the tries to make it small."""

    def __init__(self, size: float) -> None:
        self.size, self.running, self.tries = size, 0, 0
        self.leftovers = Leftovers(lambda: self.size, lambda: self.running, self._release)

    def _release(self) -> None:
        self.tries += 1

    def looks(self, count: int) -> int:
        """The tries in so many looks."""
        before = self.tries
        for _ in range(count):
            self.leftovers.look()
        return self.tries - before


SMALL, LARGE = 30 * 2**20, 80 * 2**20


def test_a_process_that_stays_small_is_left_alone() -> None:
    process = Process(SMALL)
    process.size += ENOUGH
    assert process.looks(100) == 0


def test_one_try_follows_a_load_that_left_nothing() -> None:
    process = Process(SMALL)
    process.size = LARGE
    assert process.looks(1) == 1
    process.size = SMALL
    assert process.looks(100) == 0


def test_no_try_is_made_while_many_requests_run() -> None:
    process = Process(SMALL)
    process.size, process.running = LARGE, FEW + 1
    assert process.looks(100) == 0
    process.running = FEW
    assert process.looks(1) == 1


def test_tries_that_give_nothing_become_rare() -> None:
    process = Process(SMALL)
    process.size = LARGE
    assert process.looks(1 + 1 + 1 + 3 + 1) == 3
    process.looks(500)
    assert process.looks(10 * (LONGEST + 1)) == 10


@pytest.mark.parametrize("between", [SMALL, LARGE - 2 * ENOUGH], ids=["it was small", "it grows again"])
def test_a_new_load_is_followed_by_a_try_at_once(between: int) -> None:
    process = Process(SMALL)
    process.size = LARGE
    process.looks(200)
    process.size = between
    process.leftovers.look()
    process.size = LARGE
    assert process.looks(1) == 1


def records(*numbers: int) -> list[tuple[float, RequestRecord]]:
    return [(float(each), RequestRecord(id=f"r{each}", status=200, ignored=["seed"])) for each in numbers]


@pytest.mark.parametrize("least", [1, BLOCK // 3, BLOCK])
def test_packed_records_are_the_same_and_the_oldest_go(least: int) -> None:
    seen, most = Recent([], 2 * BLOCK + 10), 2 * BLOCK + 10
    for number in range(6 * BLOCK + 3):
        seen.extend(records(number))
        seen.pack(least)
    assert list(seen.copy()) == records(*range(6 * BLOCK + 3 - most, 6 * BLOCK + 3))
    assert (len(seen) < least or len(seen) == 0, len(seen._blocks)) == (True, 3)


def test_a_block_has_a_bound() -> None:
    seen = Recent(records(*range(2 * BLOCK + 3)), 3 * BLOCK)
    assert (seen.pack(), seen.pack(), seen.pack()) == (True, False, False)
    assert (len(seen._blocks), len(seen)) == (2, 3)
    assert list(seen.copy()) == records(*range(2 * BLOCK + 3))


def test_records_that_cannot_be_packed_stay() -> None:
    seen = Recent(records(*range(BLOCK)), BLOCK)
    seen.append((1.0, RequestRecord(ignored=[object()])))  # type: ignore[list-item]
    seen.pack()
    assert len(seen) == len(seen.copy()) == BLOCK


PINNED = """
import asyncio, sys
from kimi_gateway.edge.home import leftovers

async def arenas():
    loop = asyncio.get_running_loop()
    held, kept = [], []
    for _ in range(40):  # 40 MiB with a future's wait in each, among objects of its size
        held.append([bytes(12) for _ in range(20_000)])
        kept.append(loop.create_future().__await__())
    held.clear()
    kept.clear()
    if sys.argv[1] == "collect":
        leftovers.collect(loop)
    sys._debugmallocstats()

asyncio.run(arenas())
"""


def arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PINNED, how], capture_output=True, text=True, check=True)
    line = next(line for line in done.stderr.splitlines() if line.startswith("# arenas allocated current"))
    return int(line.rpartition("=")[2])


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="asyncio keeps no waits")
def test_what_asyncio_keeps_does_not_hold_a_load_s_memory() -> None:
    assert arenas("collect") < arenas("leave") - 20
