"""Whether one key's large bodies hold up another key's short questions: so many bodies of 7 MB at once, of
several kinds, beside questions one after the other. Interleaved rounds in one run; ends by itself. What the
columns mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from load import chat, connect, percentile, request
from loop_block import unlimited_key
from loop_corpus import CHAT, _chat, _in_format, _picture, posted
from processes import on_cores, shares, unwind_on_signals
from targets import emulator, gateway

MB = 1_000_000
KINDS: dict[str, Callable[[int], bytes]] = {
    "a text": lambda size: _chat("word " * (size // 5)),
    "escapes": lambda size: _chat("\n" * (size // 2)),
    "messages": lambda size: _in_format(CHAT, size // 110),
    "a picture": _picture,
}


def attack(told: Pipe, port: int, key: str) -> None:
    """A process: for each (kind, size, count) that it is told, sends so many bodies at once, and tells the
    statuses and the seconds."""
    bodies: dict[tuple[str, int], bytes] = {}

    def one(message: bytes, found: Counter[str]) -> None:
        with socket.create_connection(("127.0.0.1", port), 120) as client:
            client.sendall(message)
            found[client.recv(16)[9:12].decode() or "closed"] += 1

    while (task := told.recv()) is not None:
        kind, size, count = task
        if (kind, size) not in bodies:
            bodies[kind, size] = posted(port, key, CHAT, KINDS[kind](size))
        told.send("ready")
        told.recv()
        found, begun = Counter[str](), time.perf_counter()
        threads = [threading.Thread(target=one, args=(bodies[kind, size], found)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told.send((found, time.perf_counter() - begun))


async def questions(port: int, message: bytes, done: asyncio.Event, clients: int) -> list[float]:
    """Milliseconds of each."""
    found: list[float] = []

    async def one() -> None:
        connection = await connect(port)
        while not done.is_set():
            begun = time.perf_counter()
            answer = await connection.ask(message)
            if answer.status != 200:
                raise SystemExit(f"a question failed: {answer.status} {answer.fault}")
            found.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.005)
        connection.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


async def during(port: int, message: bytes, clients: int, work: Callable[[], object]) -> list[float]:
    done = asyncio.Event()
    asking = asyncio.create_task(questions(port, message, done, clients))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(work)
    done.set()
    return await asking


async def measure(
    told: Pipe, port: int, key: str, kinds: list[str], size: int, count: int, rounds: int
) -> str:
    message = request(port, key, chat({"chunks": 4, "gap_ms": 0}, False))
    await during(port, message, 2, lambda: time.sleep(1))  # warm
    rows = []
    for kind in kinds:
        alone, beside, ratios, took, outcomes = (
            list[float](),
            list[float](),
            list[float](),
            0.0,
            Counter[str](),
        )
        for _ in range(rounds):
            quiet = await during(port, message, 2, lambda: time.sleep(1))
            told.send((kind, size, count))
            await asyncio.to_thread(told.recv)
            said: list[tuple[Counter[str], float]] = []

            def work(said: list[tuple[Counter[str], float]] = said) -> None:
                told.send("go")
                said.append(told.recv())

            loud = await during(port, message, 2, work)
            outcomes += said[0][0]
            took += said[0][1]
            alone, beside = alone + quiet, beside + loud
            ratios.append(percentile(loud, 0.9) / percentile(quiet, 0.9))
        cells = [
            percentile(alone, 0.5),
            percentile(alone, 0.9),
            percentile(beside, 0.5),
            percentile(beside, 0.9),
        ]
        cells += [max(beside), statistics.median(ratios), took / rounds]
        rows.append(f"| {kind} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {dict(outcomes)} |")
    names = (
        "p50 alone | p90 alone | p50 beside | p90 beside | longest | p90 ÷ alone | bodies took s | statuses"
    )
    head = f"| bodies | {names} |"
    return "\n".join([head, "| --- |" + " ---: |" * 7 + " --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds, comma-joined")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", type=float, default=7.0, help="MB of a body")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if any(word in kind for word in options.only.split(","))]
    unwind_on_signals()
    target_cores, other_cores = shares()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        upstream = emulator(home)
        target = gateway(home, f"http://127.0.0.1:{upstream.port}/v1")
        here, there = multiprocessing.Pipe()
        with on_cores(other_cores):
            crowd = multiprocessing.get_context("spawn").Process(
                target=attack, args=(there, target.port, unlimited_key(target)), daemon=True
            )
            crowd.start()
        try:
            with upstream.start(other_cores) as emulating, target.start(target_cores) as process:
                emulating.wait_for(upstream.port)
                process.wait_for(target.port)
                size = int(options.size * MB)
                before = process.cpu()
                print(
                    asyncio.run(
                        measure(here, target.port, target.key, kinds, size, options.count, options.rounds)
                    )
                )
                print(f"\nCPU of the gateway: {process.cpu() - before:.1f} s")
        finally:
            crowd.kill()
            crowd.join()


if __name__ == "__main__":
    main()
    sys.exit(0)
