"""Usage rows in SQLite, as parts of a transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable

from kimi_gateway.accounts.usage import SUMMED, hour_of
from kimi_gateway.accounts.values import UsageRow

_PLACE = ("hour", "account", "key", "model")
_COLUMNS = (*_PLACE, *SUMMED, "last", "last_cost")
_VALUES = ",".join("?" * len(_COLUMNS))
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMMED)
_COUNT = f"""
INSERT INTO usage ({", ".join(_COLUMNS)}) VALUES ({_VALUES}) ON CONFLICT DO UPDATE SET {_ADDED},
    last_cost = iif(excluded.last >= last, excluded.last_cost, last_cost), last = max(last, excluded.last)
"""  # noqa: S608 - constants
_COUNT_FAILURE = """
INSERT INTO failures VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET errors = errors + excluded.errors
"""
_OF = "hour >= ? AND account = coalesce(?, account)"
_ROWS = f"""
SELECT {", ".join(_COLUMNS)} FROM usage WHERE {_OF} ORDER BY hour, account, key, model
"""  # noqa: S608 - constants
_FAILURES = f"SELECT * FROM failures WHERE {_OF} ORDER BY cause"  # noqa: S608 - constants
_TABLES = ("usage", "failures")


def count(db: sqlite3.Connection, row: UsageRow | None) -> None:
    if row is None:
        return
    db.execute(_COUNT, [getattr(row, name) for name in _COLUMNS])
    place = (row.hour, row.account, row.key, row.model)
    for cause, errors in row.causes:
        db.execute(_COUNT_FAILURE, (*place, cause, errors))


def rows(db: sqlite3.Connection, since: int, account: str | None) -> list[UsageRow]:
    of = (hour_of(since), account)
    causes = _causes(db.execute(_FAILURES, of))
    found = []
    for values in db.execute(_ROWS, of):
        named = dict(zip(_COLUMNS, values, strict=True))
        found.append(UsageRow(**named, causes=tuple(causes.get(values[:4], ()))))
    return found


def _causes(
    rows: Iterable[tuple[int, str, str, str, str, int]],
) -> dict[tuple[int, str, str, str], list[tuple[str, int]]]:
    found: dict[tuple[int, str, str, str], list[tuple[str, int]]] = defaultdict(list)
    for hour, account, key, model, cause, errors in rows:
        found[hour, account, key, model].append((cause, errors))
    return found


def purge(db: sqlite3.Connection, before: int) -> None:
    """Delete the rows of hours before this second."""
    for table in _TABLES:
        db.execute(f"DELETE FROM {table} WHERE hour < ?", (before,))  # noqa: S608 - constants
