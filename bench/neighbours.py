"""Whether callers disturb each other: 200 slow streams beside short questions, and a key far above its limit
beside one within. Interleaved phases in one run; ends by itself. What the columns mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from load import Answer, Connection, chat, connect, percentile, request
from processes import shares, unwind_on_signals
from targets import GATEWAY, Target, emulator, gateway

RATE = 50  # short questions a second
LIMIT = 60  # of the flooding key, a minute; it asks 20 times as often
FLOOD = 20.0  # requests a second


@dataclass(slots=True)
class Phase:
    """Latencies in milliseconds, from the moment a question was due."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def p50(self) -> float:
        return percentile(self.latencies, 0.5)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)


class Callers:
    """As many connections as there are questions under way at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def ask(self, message: bytes) -> Answer:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                break
        else:
            connection = await connect(self._port)
        answer = await connection.ask(message)
        if not connection.closed:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def at_rate(rate: float, seconds: float, ask: Callable[[], Awaitable[Answer]]) -> Phase:
    """Open loop: a question is asked when it is due, however long the ones before it take."""
    phase, begun, asking = Phase(), time.perf_counter(), set[asyncio.Task[None]]()

    async def one(due: float) -> None:
        answer = await ask()
        phase.latencies.append((time.perf_counter() - due) * 1000)
        phase.outcomes[answer.fault or str(answer.status)] += 1

    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.add(task := asyncio.create_task(one(due)))
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    return phase


async def slow_streams(port: int, key: str, count: int, seconds: int) -> Counter[str]:
    """Streams of a chunk a second. They begin over one second, or all would speak in the same instant."""
    message = request(port, key, chat({"chunks": seconds, "gap_ms": 1000}, True))

    async def one(number: int) -> str:
        await asyncio.sleep(number / count)
        connection = await connect(port)
        answer = await connection.ask(message)
        connection.close()
        whole = answer.status == 200 and b"data: [DONE]" in answer.body[-64:]
        return "whole" if whole else answer.fault or f"status {answer.status}"

    return Counter(await asyncio.gather(*map(one, range(count))))


def limited_key(target: Target) -> str:
    argv = [*GATEWAY, "keys", "create", "--credits", "100000", "--rpm", str(LIMIT), "--json"]
    made = subprocess.run(argv, env=target.environ, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    return str(json.loads(made.stdout)["key"])


async def measure(target: Target, streams: int, seconds: int, rounds: int) -> tuple[str, bool]:
    port, callers = target.port, Callers(target.port)
    message = request(port, target.key, chat({"chunks": 4, "gap_ms": 0}, False))
    flood_message = request(port, limited_key(target), chat({"chunks": 4, "gap_ms": 0}, False))
    short = lambda: callers.ask(message)  # noqa: E731
    await at_rate(RATE, 3, short)  # warm
    alone = await at_rate(RATE, seconds - 5, short)
    begun = asyncio.create_task(slow_streams(port, target.key, streams, seconds))
    await asyncio.sleep(2)
    beside = await at_rate(RATE, seconds - 5, short)
    outcomes = await begun
    await asyncio.sleep(1)
    quiet, flooded, refused = [], [], Counter[str]()
    for _ in range(rounds):
        quiet.append(await at_rate(RATE, 10, short))
        flood = asyncio.create_task(at_rate(FLOOD, 10, lambda: callers.ask(flood_message)))
        flooded.append(await at_rate(RATE, 10, short))
        refused += (await flood).outcomes
    callers.close()
    whole = all(set(phase.outcomes) == {"200"} for phase in (alone, beside, *quiet, *flooded))
    ratio = statistics.median(b.p99 / a.p99 for a, b in zip(quiet, flooded, strict=True))
    rows = [
        f"| {RATE}/s alone | {alone.p50:.2f} | {alone.p99:.2f} | – |",
        f"| {RATE}/s beside {streams} streams of {seconds} s | {beside.p50:.2f} | {beside.p99:.2f}"
        f" | {beside.p99 / alone.p99:.2f} |",
        f"| {RATE}/s alone, {rounds} rounds | {statistics.median(p.p50 for p in quiet):.2f}"
        f" | {statistics.median(p.p99 for p in quiet):.2f} | – |",
        f"| {RATE}/s beside a key at 20 × its limit | {statistics.median(p.p50 for p in flooded):.2f}"
        f" | {statistics.median(p.p99 for p in flooded):.2f} | {ratio:.2f} |",
    ]
    table = "\n".join(
        ["| short questions | p50 ms | p99 ms | p99 ÷ alone |", "| --- | ---: | ---: | ---: |", *rows]
    )
    tail = f"\n\nStreams: {dict(outcomes)}. The flooding key: {dict(refused)}."
    return table + tail, whole and set(outcomes) == {"whole"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5, help="of 20 s, for the flooding key")
    options = parser.parse_args()
    unwind_on_signals()
    target_cores, other_cores = shares()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        upstream = emulator(home)
        target = gateway(home, f"http://127.0.0.1:{upstream.port}/v1")
        with upstream.start(other_cores) as emulating, target.start(target_cores) as process:
            emulating.wait_for(upstream.port)
            process.wait_for(target.port)
            table, sound = asyncio.run(measure(target, options.streams, options.seconds, options.rounds))
    print(table)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
