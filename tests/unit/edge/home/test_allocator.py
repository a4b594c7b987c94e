"""Memory that goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path
from kimi_gateway.edge.home.allocator import give_back_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

give_back_large_blocks()
first = bytearray(8 * 2**20)
del first  # glibc learns from it
before, blocks, between = resident(), [], []
for _ in range(8):
    blocks.append(b"x" * (6 * 2**20))
    between.append(b"y" * 100_000)
blocks.clear()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; other C libraries have no such thresholds")
def test_large_blocks_between_small_ones_leave_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10  # MiB; without the thresholds all 48 stay
