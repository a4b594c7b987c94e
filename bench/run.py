"""The benchmark: direct, relay, bare proxy and gateway in one run, in turns. Linux only (it reads /proc).

What the columns mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import platform
import re
import resource
import select
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

import targets
from load import WORKLOADS, Result, chat
from processes import NotStarted, Process, busy, on_cores, shares, unwind_on_signals
from report import DIRECT, RELAY, Findings, Life, Measured, markdown
from targets import Target

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RESTS = 20.0  # seconds after the last load until the memory is read
SETTLES = 0.05  # seconds for what a target does behind its last answer
QUICK = ["small-1", "small-64", "json-100", "stream-1", "stream-16", "paced-50", "body-1mb"]
USUAL = [*QUICK, "json-20", "json-500", "beside-8mib", "paced-500", "idle-2000"]
LOOKS = 0.2  # seconds between looks at a target's memory
EXTRA = ["start", "admission"]


class Bench:
    def __init__(self, home: Path, arguments: argparse.Namespace) -> None:
        self.found = Findings()
        self._home = home
        self._options = arguments
        self._core, self._others = shares()
        self._running: dict[str, tuple[Target, Process]] = {}

    def run(self) -> None:
        with ExitStack() as stack:
            emulator = targets.emulator(self._home)
            self._running[DIRECT] = emulator, stack.enter_context(emulator.start(self._others))
            self._running[DIRECT][1].wait_for(emulator.port)
            compared = self._compared(f"http://127.0.0.1:{emulator.port}/v1")
            self._starts(compared)
            workloads = [name for name in self._options.only if name in WORKLOADS]
            for target in compared if workloads else ():
                process = stack.enter_context(target.start(self._cores(target)))
                _first_answer(target, process)
                self._running[target.name] = target, process
            # One workload after the other, few clients first: what many leave behind in a pool costs the few.
            for workload in sorted(workloads, key=lambda name: WORKLOADS[name].clients):
                for number in range(self._options.rounds):
                    for name in self._running:
                        if not WORKLOADS[workload].many or name in (DIRECT, RELAY) or "gateway" in name:
                            self._measure(name, workload, number)
            time.sleep(RESTS if workloads and not self._options.quick else 0)
            for name in self._running if workloads else ():
                if name != DIRECT:
                    self.found.lives.setdefault(name, Life()).loaded = self._running[name][1].rss()
        if "admission" in self._options.only:
            self._admission()

    def _compared(self, upstream: str) -> list[Target]:
        made = [targets.relay(self._home, upstream), targets.bare_proxy(self._home, upstream)]
        if self._options.against:
            other = {"PYTHONPATH": str(self._options.against.resolve())}
            made.append(targets.gateway(self._home, upstream, "other gateway", **other))
        for name, command in self._options.peers:
            made.append(targets.peer(self._home, upstream, name, command))
        if self._options.workers > 1:
            name = f"gateway, {self._options.workers} workers"
            made.append(targets.gateway(self._home, upstream, name, workers=self._options.workers))
        return [*made, targets.gateway(self._home, upstream)]

    def _cores(self, target: Target) -> set[int]:
        """Several workers have all cores, and share them with the load."""
        return self._core | self._others if "workers" in target.name else self._core

    def _starts(self, compared: Collection[Target]) -> None:
        for _ in range(self._options.starts if "start" in self._options.only else 0):
            for target in compared:
                with target.start(self._cores(target)) as process:
                    seconds = _first_answer(target, process)
                    life = self.found.lives.setdefault(target.name, Life())
                    life.starts.append(seconds)
                    life.idle.append(process.rss())

    def _measure(self, name: str, workload: str, number: int) -> None:
        target, process = self._running[name]
        emulator = self._running[DIRECT][1]
        argv = [sys.executable, str(HERE / "load.py"), "--workload", workload, "--port", str(target.port)]
        argv += ["--key", target.key, "--seconds", str(self._options.seconds)]
        with (
            on_cores(self._others),
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load,  # noqa: S603
        ):
            assert load.stdin is not None  # noqa: S101
            assert load.stdout is not None  # noqa: S101
            try:
                if load.stdout.readline() != "ready\n":
                    raise NotStarted(f"the load on {name} broke off: {target.log.read_text()[-2000:]}")
                time.sleep(SETTLES)
                before = process.cpu(), emulator.cpu()
                rss = most = process.rss()
                load.stdin.write("go\n")
                load.stdin.flush()
                while WORKLOADS[workload].many and not select.select([load.stdout], [], [], LOOKS)[0]:
                    most = max(most, process.rss())
                result = Result(**json.loads(load.stdout.readline()))
                time.sleep(SETTLES)
                cpu, others = process.cpu() - before[0], emulator.cpu() - before[1] + result.cpu
            finally:
                load.terminate()
        self.found.runs.append(Measured(name, workload, number, result, cpu, others, most - rss))
        told = f"round {number + 1}  {workload:10}{name:16}{result.requests:6} answers"
        print(f"{told}  p50 {result.p50:8.2f} ms  CPU {self.found.runs[-1].cpu_ms:7.3f} ms", file=sys.stderr)
        if result.errors:
            print(f"  failed: {result.errors}, log: {target.log.read_text()[-1000:]}", file=sys.stderr)

    def _admission(self) -> None:
        count = "5000" if self._options.quick else "50000"
        with on_cores(self._core):
            done = subprocess.run(  # noqa: S603
                [sys.executable, str(HERE / "admission.py"), "--count", count],
                env=targets.environment(self._home, TMPDIR=str(self._home)),
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            )
        for step, a_second in re.findall(r"^(\w+) +([\d,]+) a second", done.stdout, re.M):
            self.found.admission[step] = float(a_second.replace(",", ""))


def _first_answer(target: Target, process: Process) -> float:
    """Seconds from exec to the first 200 of a chat request. Raises NotStarted."""
    process.wait_for(target.port)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    headers = {"authorization": f"Bearer {target.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(chat({"chunks": 4}, False)), headers)
    answer = connection.getresponse()
    seconds = time.perf_counter() - process.started
    if answer.status != 200:
        raise NotStarted(f"{target.name}: {answer.status} {answer.read()[:300]!r}\n{target.log.read_text()}")
    connection.close()
    return seconds


def about(options: argparse.Namespace, seconds: float, foreign: float) -> str:
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    names = ("fastapi", "httpx", "httptools", "uvicorn")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    core, others = shares()
    cores = "the target on a core of its own" if core != others else "one core for all"
    return (
        f"{datetime.date.today()}, {options.rounds} rounds of {options.seconds:g} s, {seconds:.0f} s in all."
        f" {cpu}, {os.cpu_count()} cores, {cores}; other programs used {foreign:.0%} of one core meanwhile."
        f" Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" {versions}. In brackets: the range over the rounds."
    )


def write(text: str) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in page:
        raise SystemExit(f"{PAGE} lacks the markers {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--only", help=f"comma-joined, of: {', '.join([*WORKLOADS, *EXTRA])}")
    parser.add_argument(
        "--against", type=Path, help="a `functions` folder: another version, as a further target"
    )
    parser.add_argument(
        "--peers",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another gateway in the same run; {port} and {upstream} in its command are replaced",
    )
    parser.add_argument("--workers", type=int, default=1, help="a further gateway with so many workers")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parsed = parser.parse_args()
    parsed.rounds = min(parsed.rounds or (1 if parsed.quick else 5), 50)
    parsed.seconds = min(parsed.seconds or (0.6 if parsed.quick else 2.0), 60)
    parsed.starts = 1 if parsed.quick else 5
    usual = [*(QUICK if parsed.quick else USUAL), *EXTRA]
    parsed.only = parsed.only.split(",") if parsed.only else usual
    parsed.peers = [tuple(peer.partition("=")[::2]) for peer in parsed.peers]
    parsed.workers = min(parsed.workers, 8)
    if unknown := set(parsed.only) - {*WORKLOADS, *EXTRA}:
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    return parsed


def own_cpu() -> float:
    """Seconds of this process and of all that it started and that has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("The benchmark reads /proc and pins processes: Linux only.")
    chosen = options()
    unwind_on_signals()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for all that is started
    start, worked, own = time.perf_counter(), busy(), own_cpu()
    with tempfile.TemporaryDirectory(prefix="kimi-bench-") as folder:
        bench = Bench(Path(folder), chosen)
        bench.run()
    seconds = time.perf_counter() - start
    foreign = max(0.0, busy() - worked - (own_cpu() - own)) / seconds
    text = markdown(bench.found, about(chosen, seconds, foreign))
    print(text)
    if chosen.write:
        write(text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except NotStarted as error:
        raise SystemExit(f"{error}") from None
