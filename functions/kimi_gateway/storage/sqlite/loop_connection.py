"""Brief jobs on the event loop itself, where no lock has to be waited for: handing one to the writer thread
and back costs more than the transaction does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """Not here, not now: the writer thread is to do it. Nothing was written."""


class Inline:
    """A connection of the loop's thread that never waits. `connect` gives one without a lock timeout and
    without checkpoints, which wait for the disk and are the writer thread's.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], refusals: tuple[type[Exception], ...]
    ) -> None:
        self._connect = connect
        self._refusals = refusals
        self._db: sqlite3.Connection | None = None
        self._thread = 0

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """In a transaction of its own. Raises Busy, and what the job raises."""
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
        """An open transaction goes with the connection."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
