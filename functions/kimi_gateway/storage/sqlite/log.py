"""The write-ahead log of the database. Copying it into the file waits for the disk, and so does the first
transaction after all of it is copied, because that starts the log again. Both belong to the writer thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from kimi_gateway.storage.sqlite import database

LOOKS, LOOK = 20, 0.002  # looks for another's transaction, and seconds between two


class Log:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0

    def copy(self, db: sqlite3.Connection) -> None:
        """Copy most of the log, while others write. The last transaction is left: a reader from before it
        does not let it be copied. So the log does not start again with a transaction of the event loop. If
        nobody writes for a while, that last transaction is one of this thread."""
        with (
            contextlib.suppress(sqlite3.Error),  # then `finish` has more to do
            contextlib.closing(database.connect_beside(self._path)) as reader,
        ):
            reader.execute("BEGIN")
            reader.execute("PRAGMA user_version").fetchone()
            (before,) = db.execute("PRAGMA data_version").fetchone()
            for _ in range(LOOKS):
                if db.execute("PRAGMA data_version").fetchone() != (before,):
                    break
                time.sleep(LOOK)
            else:
                self._write(db)
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def finish(self, db: sqlite3.Connection) -> None:
        """Copy the rest, while nobody of this process writes."""
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._written = 0  # the file's time has steps of some milliseconds, and may be that of before

    def restart(self, db: sqlite3.Connection) -> None:
        """Write a page if anything was copied, which alone changes the file: if all was, this transaction
        waits for the disk."""
        with contextlib.suppress(OSError, sqlite3.Error):  # another process writes, and restarts it then
            written = os.stat(self._path).st_mtime_ns
            if written != self._written:
                self._written = written
                self._write(db)

    @staticmethod
    def _write(db: sqlite3.Connection) -> None:
        try:
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {version}")  # written though it is the same
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
