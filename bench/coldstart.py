"""Cold starts: process start → first GET /next, of the built zip and of what one would write instead.

Method and results: docs/benchmarks.md, Cold start. Linux only (it reads /proc).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import requires, version
from pathlib import Path

import targets
from load import chat
from processes import NotStarted, on_cores, shares, unwind_on_signals
from run import PAGE
from runtime_api import RuntimeApi

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "infra"))

import build  # noqa: E402

BEGIN, END = "<!-- coldstart:begin -->", "<!-- coldstart:end -->"
PEER = ("fastapi", "mangum", "boto3", "httpx")
STREAMS = 100
LOOP = "from kimi_gateway.edge.aws.lambda_runtime import main; main()"
HANDLER = "handlers.chat_completions.handler"
US, PLAIN, THEM, THEM_PLAIN = (
    "gateway",
    "gateway, no bytecode",
    "FastAPI handler",
    "FastAPI handler, no bytecode",
)
BARE = "bare Python"
# The table's address is never asked: a start reads nothing from it.
DEPLOYED = {"KIMI_GATEWAY_TABLE": "bench", "AWS_REGION": "eu-central-1", "MOONSHOT_API_KEY": "sk-bench-token",
            "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}  # fmt: skip


@dataclass(slots=True)
class Started:
    """Of each start: wall and CPU milliseconds until the first GET /next, and MiB then."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    argv: list[str]
    environ: Mapping[str, str]


def closure(names: tuple[str, ...]) -> list[str]:
    """These packages and what they need here, as name==version."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            with suppress(ModuleNotFoundError):
                found[name] = version(name)
                needed = [need for need in requires(name) or () if ";" not in need]
                waiting += [re.split(r"[^\w.-]", need)[0] for need in needed]
    return sorted(f"{name}=={number}" for name, number in found.items())


def peer(folder: Path, minor: str) -> Path:
    """The FastAPI handler with its packages, for the interpreter that is measured."""
    platforms = [argument for name in build.PLATFORMS for argument in ("--platform", f"{name}_{_machine()}")]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-compile", "--only-binary", ":all:", "--implementation", "cp", "--python-version", minor,
        *platforms, "--target", str(folder), *closure(PEER),
    ]  # fmt: skip
    if subprocess.run(command).returncode:  # noqa: S603
        raise NotStarted("the packages of the FastAPI handler could not be installed")
    shutil.copy(Path(__file__).with_name("fastapi_handler.py"), folder)
    return folder


def _machine() -> str:
    return "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def without_bytecode(tree: Path) -> Path:
    """A copy, as a build that drops it would ship."""
    return shutil.copytree(
        tree, tree.with_name(f"{tree.name}-plain"), ignore=shutil.ignore_patterns("__pycache__")
    )


def start(kind: Kind, api: RuntimeApi, log: Path) -> tuple[float, float, float, subprocess.Popen[bytes]]:
    """Wall, CPU and RSS at the first GET /next; the process goes on waiting."""
    environ = {**kind.environ, "AWS_LAMBDA_RUNTIME_API": api.address}
    with log.open("ab") as sink:
        begun = time.perf_counter()
        process = subprocess.Popen(kind.argv, env=environ, stdout=sink, stderr=sink)  # noqa: S603
    end = begun + 60
    while time.perf_counter() < end and process.poll() is None:
        with suppress(Exception):
            asked = api.asked.get(timeout=0.2)
            ran = sum(_nanoseconds(task) for task in Path(f"/proc/{process.pid}/task").iterdir())
            return (asked - begun) * 1000, ran / 1e6, memory(process.pid, "VmRSS"), process
    process.kill()
    raise NotStarted(f"{kind.name}: {log.read_text()[-2000:]}")


def _nanoseconds(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])


def memory(pid: int, name: str) -> float:
    """MiB."""
    (kib,) = re.findall(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(kib) / 1024


def kinds(home: Path, python: str, minor: str) -> list[Kind]:
    zipped = home / "gateway.zip"
    build.build("arm64" if _machine() == "aarch64" else "x86_64", minor, zipped)
    task = home / "task"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(task)
    other = peer(home / "peer", minor)
    plain, other_plain = without_bytecode(task), without_bytecode(other)
    build.compile_all(python, other)
    poll = [python, str(Path(__file__).with_name("poll.py"))]
    frozen = {"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}

    def ours(tree: Path) -> dict[str, str]:
        return {**frozen, **DEPLOYED, "PYTHONPATH": str(tree), "_HANDLER": HANDLER}

    def theirs(tree: Path) -> dict[str, str]:
        return {**frozen, "PYTHONPATH": str(tree)}

    return [
        Kind(BARE, poll, frozen),
        Kind(US, [python, "-c", LOOP], ours(task)),
        Kind(PLAIN, [python, "-c", LOOP], ours(plain)),
        Kind(THEM, [*poll, "fastapi_handler:handler"], theirs(other)),
        Kind(THEM_PLAIN, [*poll, "fastapi_handler:handler"], theirs(other_plain)),
    ]


def streams(kind: Kind, api: RuntimeApi, key: str, log: Path) -> tuple[float, float]:
    """MiB after so many streams of 100 chunks, and at the most."""
    *_, process = start(kind, api, log)
    event = {
        "httpMethod": "POST",
        "path": "/v1/chat/completions",
        "headers": {"authorization": f"Bearer {key}"},
        "body": json.dumps(chat({"chunks": 100}, True)),
        "requestContext": {},
    }
    try:
        for _ in range(STREAMS):
            api.give(json.dumps(event).encode())
            if api.answered.get(timeout=30) < 10_000:
                raise NotStarted(f"a stream failed: {log.read_text()[-2000:]}")
            api.asked.get(timeout=30)
        return memory(process.pid, "VmRSS"), memory(process.pid, "VmHWM")
    finally:
        end(process, api)


def end(process: subprocess.Popen[bytes], api: RuntimeApi) -> None:
    process.kill()
    process.wait()
    api.forget()


def measure(rounds: int, minor: str) -> tuple[dict[str, Started], tuple[float, float]]:
    python = build.interpreter(minor)
    core, others = shares()
    found: dict[str, Started] = {}
    with tempfile.TemporaryDirectory(prefix="kimi-cold-") as folder, RuntimeApi() as api:
        home, log = Path(folder), Path(folder) / "log"
        emulator = targets.emulator(home)
        with emulator.start(others) as running:
            running.wait_for(emulator.port)
            made = targets.gateway(home, f"http://127.0.0.1:{emulator.port}/v1")
            compared = kinds(home, python, minor)
            for number in range(rounds + 1):
                for kind in compared:
                    with on_cores(core):
                        wall, cpu, rss, process = start(kind, api, log)
                    end(process, api)
                    if number:  # the first round fills the machine's file cache
                        one = found.setdefault(kind.name, Started())
                        one.wall.append(wall)
                        one.cpu.append(cpu)
                        one.rss.append(rss)
                        print(
                            f"round {number}  {kind.name:30}{wall:8.1f} ms  CPU {cpu:7.1f} ms",
                            file=sys.stderr,
                        )
            us = compared[1]
            at_home = {name: value for name, value in us.environ.items() if name not in DEPLOYED}
            us = Kind(us.name, us.argv, {**made.environ, **at_home})
            return found, streams(us, api, made.key, log)


def ratio(found: Mapping[str, Started], one: str, other: str, what: str) -> str:
    each = [
        mine / its for mine, its in zip(getattr(found[one], what), getattr(found[other], what), strict=True)
    ]
    return f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})"


def markdown(found: Mapping[str, Started], after: tuple[float, float], rounds: int, minor: str) -> str:
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, IndexError):
        cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    lines = [
        f"{datetime.date.today()}, {rounds} rounds in turns, Python {minor}, {cpu}, one core."
        f" Versions: {', '.join(pinned for pinned in closure(PEER) if pinned.partition('==')[0] in PEER)}."
        " Medians; in brackets the range over the rounds.",
        "",
        "|  | wall ms | CPU ms | RSS MiB at the first `/next` | wall ÷ bare Python |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, one in found.items():
        wall, cpu_ms, rss = map(statistics.median, (one.wall, one.cpu, one.rss))
        spread = f"{wall:.0f} ({min(one.wall):.0f}–{max(one.wall):.0f})"
        lines.append(f"| {name} | {spread} | {cpu_ms:.0f} | {rss:.0f} | {ratio(found, name, BARE, 'wall')} |")
    lines += ["", "|  | bar | wall | CPU |", "| --- | ---: | ---: | ---: |"]
    for title, bar, other in (
        ("÷ the FastAPI handler, both compiled", "≤ 0.33", THEM),
        ("÷ the FastAPI handler without bytecode", "≤ 0.14", THEM_PLAIN),
        ("÷ itself without bytecode", "", PLAIN),
    ):
        walls, cpus = ratio(found, US, other, "wall"), ratio(found, US, other, "cpu")
        lines.append(f"| gateway {title} | {bar} | {walls} | {cpus} |")
    lines += [
        "",
        f"RSS after {STREAMS} streams of 100 chunks: {after[0]:.1f} MiB,"
        f" {after[1]:.1f} at the most; the bar is 80.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("The benchmark reads /proc and pins processes: Linux only.")
    parser = argparse.ArgumentParser(prog="scripts/bench coldstart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--python", default="3.13", metavar="MINOR", help="as the template's Runtime")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    unwind_on_signals()
    try:
        found, after = measure(options.rounds, options.python)
    except (NotStarted, build.Unbuildable) as exc:
        raise SystemExit(str(exc)) from exc
    text = markdown(found, after, options.rounds, options.python)
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
