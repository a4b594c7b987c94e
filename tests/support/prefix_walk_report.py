"""Walks of a tool loop, call by call, on SQLite and an upstream with a prefix cache (prefix_walk.py).

Prints for each kind of client how much of the request before was cached, and what a turn cost the store in
each part of the walk. Ends with 1 where a share is below 99 %, or the last part costs more than twice the
dearest part before it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from support.prefix_walk import STEPS, Turn, Walk

PARTS = 6
LEAST = 0.99
COSTS = ("reads", "read", "writes", "written")


def walked(kind: str, calls: int, hours: float, lives: int) -> list[list[str]]:
    """A row for each part. The last one says whether all is well."""
    with tempfile.TemporaryDirectory() as folder:
        walk = Walk(STEPS[kind], Path(folder) / "data", calls, hours, lives)
        turns = list(walk)
        restored = walk.upstream.restored()
    rows = []
    for part in range(PARTS):
        first, end = calls * part // PARTS, calls * (part + 1) // PARTS
        some = turns[first:end]
        means = [sum(getattr(turn, cost) for turn in some) / len(some) for cost in COSTS]
        most = [max(getattr(turn, cost) for turn in some) for cost in COSTS]
        cells = [f"{mean:.1f} ({top})" for mean, top in zip(means, most, strict=True)]
        rows.append([kind, f"{first}–{end - 1}", f"{100 * min(turn.share for turn in some):.2f} %", *cells])
    good = restored and all(turn.share >= LEAST for turn in turns) and not grows(turns)
    rows[-1].append("yes" if good else "NO")
    return rows


def grows(turns: list[Turn]) -> bool:
    """Whether a turn of the last part costs more calls than one of the parts before, by the mean."""
    size = len(turns) // PARTS
    means = [
        sum(turn.reads + turn.writes for turn in turns[at * size : (at + 1) * size]) / size
        for at in range(PARTS)
    ]
    return means[-1] > 2 * max(means[:-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_200)
    parser.add_argument("--hours", type=float, default=60, help="that the whole walk takes, of the set clock")
    parser.add_argument("--lives", type=int, default=3, help="processes, one after the other")
    parser.add_argument("kinds", nargs="*", default=list(STEPS), metavar="KIND")
    asked = parser.parse_args()
    logging.disable()
    head = [
        "Client",
        "Calls",
        "Least share cached",
        "Reads",
        "Entries read",
        "Writes",
        "Entries written",
        "Held",
    ]
    rows = [row for kind in asked.kinds for row in walked(kind, asked.calls, asked.hours, asked.lives)]
    for cells in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join([*cells, ""][: len(head)]) + " |")
    return int(any(row[-1] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
