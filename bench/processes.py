"""Processes of a benchmark: started on chosen cores, read through /proc, ended by their pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")
UNTIL_READY = 60.0  # seconds
UNTIL_ENDED = 20.0


class NotStarted(Exception):
    """A process ended, or did not answer in time; the end of its log says why."""


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """What is started inside inherits the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def shares() -> tuple[set[int], set[int]]:
    """The target's core and the others' cores; the same where the machine has one only."""
    first, *rest = sorted(os.sched_getaffinity(0), reverse=True)
    return {first}, set(rest) or {first}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as tried:
        return int(tried.getsockname()[1])


def unwind_on_signals() -> None:
    """SIGINT, also where a shell started this in the background, and SIGTERM end what was started."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Process:
    """`with Process(…) as process:`; its output goes to `log`."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], cores: Collection[int], log: Path
    ) -> None:
        self.log = log
        self.started = time.perf_counter()
        # A session of its own: a Ctrl-C must not reach it before it was measured or told to end.
        with on_cores(cores), log.open("ab") as sink:
            self._popen = subprocess.Popen(  # noqa: S603
                argv,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(UNTIL_ENDED)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()

    def wait_for(self, port: int) -> None:
        """Until something listens there."""
        end = time.perf_counter() + UNTIL_READY
        while time.perf_counter() < end:
            if self._popen.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.002)
        raise NotStarted(f"{self._popen.args!r}\n{self.log.read_text()[-2000:]}")

    def tree(self) -> list[int]:
        """Its pid and those of its descendants."""
        parents = {pid: parent for pid, parent in _parents()}
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu(self) -> float:
        """Seconds in user and system mode, of its descendants too, ended ones included."""
        return sum(sum(map(int, fields[11:15])) for fields in map(_stat, self.tree()) if fields) / TICK

    def rss(self) -> float:
        """MiB of the tree."""
        pages = sum(int(fields[21]) for fields in map(_stat, self.tree()) if fields)
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def files(self) -> tuple[int, int]:
        """Open file descriptors, and how many of them are sockets."""
        links = []
        for pid in self.tree():
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    links.append(os.readlink(entry))
        return len(links), sum(link.startswith("socket:") for link in links)

    def threads(self) -> int:
        return sum(int(fields[17]) for fields in map(_stat, self.tree()) if fields)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            yield int(entry), int(fields[1])


def busy() -> float:
    """Seconds that all cores have worked since boot, whoever for."""
    user, nice, system, _, _, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split()[1:11]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / TICK
