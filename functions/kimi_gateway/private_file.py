"""Small files of mode 0600 that several processes of one machine read and change."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 2.0  # seconds for the change of another process, which takes milliseconds
EVERY = 0.005  # seconds between two tries of a lock


def replace_file(path: Path, lines: Iterable[str]) -> None:
    """Write a file in one step, so that no reader sees half of it. Raises OSError, and errors of `lines`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file between its reading and its writing here. The lock is on a
    file beside it, because a replaced file is another one; it ends with the process, even if that is
    killed. Raises OSError, also if another process keeps the lock."""
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise TimeoutError(None, "another process keeps its lock", str(path)) from None
            time.sleep(EVERY)
        else:
            return


def is_locked(handle: int) -> bool:
    """Whether another process has locked this open file for itself."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
