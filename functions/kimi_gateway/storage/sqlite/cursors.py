"""Lets the connections of a writer forget the cursors of earlier jobs, when a load is over.

sqlite3 keeps a reference to each cursor, and drops those of dead ones after 200 further cursors.
"""

from __future__ import annotations

import sqlite3
import sys
import weakref

from kimi_gateway.storage.sqlite.writer import Writer

MOST = 201


async def forget(writer: Writer) -> None:
    """Raises StoreDown."""
    await writer.run(_forget)
    await writer.run(_forget, brief=True)  # on the loop, whose connection is another


def _forget(db: sqlite3.Connection) -> None:
    (reference,) = weakref.getweakrefs(db.cursor())
    for _ in range(MOST):
        if sys.getrefcount(reference) <= 2:  # this name and the call's own: sqlite3 has dropped it
            return
        db.cursor()
