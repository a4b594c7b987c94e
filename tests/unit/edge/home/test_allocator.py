"""Memory that goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

RESIDENT = """
from pathlib import Path
from kimi_gateway.edge.home.allocator import share_heap, trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
"""
LARGE = """
share_heap()
for _ in range(2):
    first = bytearray(8 * 2**20)
    del first  # glibc learns from it
before, blocks, between = resident(), [], []
for _ in range(8):
    blocks.append(b"x" * (6 * 2**20))
    between.append(b"y" * 100_000)
blocks.clear()
print(resident() - before)
trim()
print(resident() - before)
"""
MANY = """
share_heap()
before, blocks, between = resident(), [], []
for _ in range(400):
    blocks.append(b"x" * 100_000)
    between.append(b"y" * 1_000)
blocks.clear()
print(resident() - before)
trim()
print(resident() - before)
"""
THREADS = """
import threading
share_heap()
for _ in range(2):
    first = bytearray(8 * 2**20)
    del first
before, together = resident(), threading.Barrier(4)

def work():
    together.wait()
    blocks = [b"x" * 100_000 for _ in range(100)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
trim()
print(resident() - before)
"""


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; other C libraries do not trim")


def sizes(code: str) -> list[float]:
    """What the code prints, in MiB."""
    command = [sys.executable, "-c", RESIDENT + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(map(float, done.stdout.split()))


@LINUX
@pytest.mark.parametrize("code", [LARGE, MANY], ids=["large", "many"])
def test_free_blocks_between_others_leave_the_process(code: str) -> None:
    left, trimmed = sizes(code)
    assert (left > 10, trimmed < 5) == (True, True), (left, trimmed)


@LINUX
def test_no_thread_has_a_heap_of_its_own() -> None:
    (trimmed,) = sizes(THREADS)
    assert trimmed < 5
