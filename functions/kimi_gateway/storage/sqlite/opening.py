"""The data folder at home: private to its owner, with the store's file in it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_gateway.accounts.usage import DAY
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.storage.sqlite.store import SqliteStore

STORE_NAME = "gateway.sqlite3"
LOCK_NAME = "gateway.lock"
READ_OR_WRITTEN, WRITTEN = 0o066, 0o022  # by the group or others


class FolderFault(Exception):
    """The data folder, or a file in it, cannot be used; the text says why and what to do."""


class InUse(Exception):
    """Another process is using the data folder."""


def prepare_data(folder: Path) -> None:
    """Create the data folder for its owner only. An existing folder stays as it is, because its mode is its
    owner's decision. Raises FolderFault if others may read or write it, or if it cannot be used."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        _refuse_open(folder)
    except OSError as exc:
        raise FolderFault(
            f"The data folder {folder} cannot be created: {exc.strerror or exc}."
            " Set KIMI_GATEWAY_DATA to a folder that you can write."
        ) from exc


def _refuse_open(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderFault(f"{folder} is not a folder. Set KIMI_GATEWAY_DATA to another place.")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & READ_OR_WRITTEN:
        verb = "write" if mode & WRITTEN else "read"
        raise FolderFault(
            f"The data folder {folder} (mode {mode:04o}) existed before, and others can {verb} it."
            " The gateway keeps keys and tokens in it, and does not change the mode of a folder that it did"
            " not create. Give it a folder of its own:"
            f" export KIMI_GATEWAY_DATA={_quoted(folder / 'kimi-gateway')}"
            f" - or, if nobody else needs this one: chmod 700 {_quoted(folder)}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise FolderFault(
            f"The data folder {folder} cannot be written by this user. Make it writable (chmod u+rwx"
            f" {_quoted(folder)}, by its owner), or set KIMI_GATEWAY_DATA to another one."
        )


def refuse_written_by_others(folder: Path, *names: str) -> None:
    """Raises FolderFault for the first file of `names` that others can write: they could make keys or
    redirect requests."""
    for path in (folder / name for name in names):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise FolderFault(f"{path} cannot be read: {exc.strerror}.") from exc
        if mode & WRITTEN:
            raise FolderFault(
                f"Others can write {path} (mode {mode:04o}), so its content cannot be trusted."
                f" Check that it is as you left it, then: chmod 600 {_quoted(path)}"
            )


def store_files() -> tuple[str, str, str]:
    return STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def open_store(settings: Settings) -> SqliteStore:
    """The SQLite store in the data folder. Raises StoreDown, FolderFault."""
    from kimi_gateway.storage.sqlite.store import SqliteStore

    prepare_data(settings.data)
    return SqliteStore(settings.data / STORE_NAME, keep_usage=settings.keep_usage * DAY)


@contextmanager
def using(folder: Path, alone: bool = False) -> Iterator[None]:
    """Lock the data folder while a process uses the store, so that no other one replaces its file. The lock
    ends with the process, even if it is killed. `alone`: no other process may use it. Raises InUse."""
    import fcntl

    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if alone:
            raise
        yield  # a folder that cannot be written can be read, and nothing is replaced in it
        return
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse from None
        yield
    finally:
        os.close(handle)
