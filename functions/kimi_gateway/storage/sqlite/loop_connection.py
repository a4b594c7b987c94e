"""Runs short jobs on the event loop if no lock must be waited for: the hand-over to the writer thread and
back costs more than the transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """The writer thread must do the job. Nothing was written."""


class LoopConnection:
    """A connection of the loop's thread that never waits. `connect` returns one without a lock timeout and
    without checkpoints, which wait for the disk and belong to the writer thread."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], refusals: tuple[type[Exception], ...]
    ) -> None:
        self._connect = connect
        self._refusals = refusals
        self._db: sqlite3.Connection | None = None
        self._thread = 0

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in its own transaction. Raises Busy and the job's errors."""
        db = self._begun()
        try:
            result = job(db)
            db.execute("COMMIT")
        except self._refusals:
            db.execute("ROLLBACK")
            raise
        except sqlite3.Error as error:
            self.close()
            raise Busy from error
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return result

    def _begun(self) -> sqlite3.Connection:
        thread = threading.get_ident()
        try:
            if self._db is None:
                self._db, self._thread = self._connect(), thread
            if thread != self._thread:
                raise Busy
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                self.close()
            raise Busy from error
        except sqlite3.Error as error:
            self.close()
            raise Busy from error
        return self._db

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
