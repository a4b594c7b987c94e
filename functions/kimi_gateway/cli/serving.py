"""A note in the data folder, without secrets, by which commands recognise the running server."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from kimi_gateway.dataclass import dataclass
from kimi_gateway.private_file import is_locked

NAMES = "server-*.json"


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server, the source of its tokens, and their ids (hashes). `started` is in unix seconds,
    `metrics` the address of /metrics if there is one."""

    pid: int
    started: int
    address: str
    source: str
    tokens: tuple[str, ...]
    metrics: str = ""


@contextmanager
def noted(
    folder: Path, address: str, source: str, tokens: tuple[str, ...], metrics: str = ""
) -> Iterator[None]:
    """Keep a locked note while the server runs. The lock ends with the process, so the note of a killed
    process is recognised even if its process id was reused."""
    _sweep(folder)
    path = folder / f"server-{os.getpid()}.json"
    note = Serving(os.getpid(), int(time.time()), address, source, tokens, metrics)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(asdict(note)).encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def servers(folder: Path) -> list[Serving]:
    """The servers that run on this data folder, the latest first."""
    found = [note for path in folder.glob(NAMES) if (note := _read(path)) is not None]
    return sorted(found, key=lambda note: note.started, reverse=True)


def _read(path: Path) -> Serving | None:
    """None if the process is gone or the file is not a note."""
    try:
        with path.open("rb") as file:
            if not is_locked(file.fileno()):
                return None
            members = json.load(file)
        return Serving(**{**members, "tokens": tuple(members["tokens"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sweep(folder: Path) -> None:
    """Delete the notes of killed processes."""
    for path in folder.glob(NAMES):
        with suppress(OSError), path.open("rb") as file:
            if not is_locked(file.fileno()):
                path.unlink()
