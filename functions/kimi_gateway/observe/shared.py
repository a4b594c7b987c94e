"""The numbers of several workers: each has a file that it maps into its memory and the others read.

A count costs a worker as much as in a list of its own. What a killed worker counted stays in its file, and
the next worker that starts goes on with it, so no counter goes back and there are no more files than workers.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kimi_gateway.observe.families import CELLS, FAMILIES, Labels
from kimi_gateway.observe.metrics import GONE, Snapshot
from kimi_gateway.private_file import is_locked

SIZE = CELLS * 8  # bytes; the file is sparse
MOST = 1_024  # workers
NAMES, VALUES = ".names", ".values"


class SharedCells:
    """The cells of one worker. Raises OSError if the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.path, self._handle = _claimed(folder)
        os.ftruncate(self._handle, SIZE)
        self._map = mmap.mmap(self._handle, SIZE)
        self.row = memoryview(self._map).cast("d")
        self._names = self.path.with_suffix(NAMES)
        self._known = list(_named(self._names))
        self._end = max([place + FAMILIES[name].cells for name, _, place in self._known], default=0)
        for name, _, place in self._known:
            if FAMILIES[name].live:
                self.row[place] = GONE

    def known(self) -> Iterable[tuple[str, Labels, int]]:
        return self._known

    def placed(self, name: str, labels: Labels, count: int) -> int:
        place, self._end = self._end, self._end + count
        with self._names.open("a", encoding="ascii") as file:
            file.write(json.dumps([name, labels, place]) + "\n")
        return place

    def others(self) -> Iterator[Snapshot]:
        """The counts of the other workers, and what the running ones read of themselves."""
        for path in sorted(self.folder.glob(f"*{VALUES}")):
            if path != self.path:
                with suppress(OSError, ValueError):  # it is just being made
                    yield _read(path)

    def close(self) -> None:
        self.row.release()
        self._map.close()
        os.close(self._handle)


def _claimed(folder: Path) -> tuple[Path, int]:
    """The first file that no running worker has."""
    for number in range(MOST):
        path = folder / f"worker-{number}{VALUES}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        return path, handle
    raise OSError("too many workers share this folder")


def _named(path: Path) -> Iterator[tuple[str, Labels, int]]:
    """The series of a file; the last line may be half written."""
    try:
        lines = path.read_text("ascii").split("\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        name, labels, place = json.loads(line)
        if name in FAMILIES and place + FAMILIES[name].cells <= CELLS:
            yield name, tuple(labels), place


def _read(path: Path) -> Snapshot:
    found: dict[str, dict[Labels, list[float]]] = {}
    with path.open("rb") as file:
        running = is_locked(file.fileno())
        row = memoryview(file.read()).cast("d")
    if len(row) < CELLS:
        raise ValueError("the file is just being made")
    for name, labels, place in _named(path.with_suffix(NAMES)):
        family = FAMILIES[name]
        if running or not family.live:
            found.setdefault(name, {})[labels] = list(row[place : place + family.cells])
    return found


def folder_of(data: Path, parent: int) -> Path:
    """The folder of the workers of the server with this process id."""
    return data / f"workers-{parent}"


@contextmanager
def kept(data: Path) -> Iterator[None]:
    """Run in the parent of the workers: no folder is left of this server, nor of killed ones."""
    sweep(data)
    try:
        yield
    finally:
        shutil.rmtree(folder_of(data, os.getpid()), ignore_errors=True)


def sweep(data: Path) -> None:
    for folder in data.glob("workers-*"):
        with suppress(OSError):
            if not any(_in_use(path) for path in folder.glob(f"*{VALUES}")):
                shutil.rmtree(folder, ignore_errors=True)


def _in_use(path: Path) -> bool:
    with path.open("rb") as file:
        return is_locked(file.fileno())
