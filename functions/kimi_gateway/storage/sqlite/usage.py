"""Usage rows in SQLite, as parts of a transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

from kimi_gateway.accounts.usage import DAY, HOUR, SUMMED, hour_of
from kimi_gateway.accounts.values import UsageRow

_PLACE = ("hour", "account", "key", "model")
_COLUMNS = (*_PLACE, *SUMMED, "last", "last_cost")
_OF_ROW = attrgetter(*_COLUMNS)
_VALUES = ",".join("?" * len(_COLUMNS))
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMMED)
_COUNT = f"""
INSERT INTO usage ({", ".join(_COLUMNS)}) VALUES ({_VALUES}) ON CONFLICT DO UPDATE SET {_ADDED},
    last_cost = iif(excluded.last >= last, excluded.last_cost, last_cost), last = max(last, excluded.last)
"""  # noqa: S608 - constants
_COUNT_FAILURE = """
INSERT INTO failures VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET errors = errors + excluded.errors
"""
_BETWEEN = "hour >= :since AND hour < :before"
_OF_ONE = f"{_BETWEEN} AND account = :account"  # by the index
# The members of a row after its place, in their order.
_IN_ROW = [each.name for each in fields(UsageRow)][len(_PLACE) : -1]
_OF_SUM = {"last": "max(last)", "last_cost": "last_cost"}
END = 2**62
LONG = 7 * DAY
_TABLES = ("usage", "failures")


def count(db: sqlite3.Connection | sqlite3.Cursor, row: UsageRow | None) -> None:
    if row is None:
        return
    db.execute(_COUNT, _OF_ROW(row))
    place = (row.hour, row.account, row.key, row.model)
    for cause, errors in row.causes:
        db.execute(_COUNT_FAILURE, (*place, cause, errors))


def rows(db: sqlite3.Connection, since: int, account: str | None) -> list[UsageRow]:
    return sums(db, since, _PLACE, account)


def halves(db: sqlite3.Connection, since: int) -> list[tuple[int, int]]:
    """The time of all rows from `since` on, in parts that are worth a reader each: from and before."""
    (last,) = db.execute("SELECT coalesce(max(hour), 0) FROM usage").fetchone()
    middle = hour_of((since + last) // 2)
    return [(since, END)] if last - since < LONG else [(since, middle), (middle, END)]


def sums(
    db: sqlite3.Connection, since: int, by: Sequence[str], account: str | None, before: int = END
) -> list[UsageRow]:
    """Rows summed by the database, as accounts.usage.summed does."""
    where = _BETWEEN if account is None else _OF_ONE
    of = {"since": hour_of(since), "before": before, "account": account}
    span = HOUR if "hour" in by else DAY if "day" in by else 0
    # Rows lie in the order of their hours, so the database adds up hours without sorting, and days from them.
    columns = ["hour" if span == HOUR else f"hour / {span} * {span}" if span else "0"]
    columns += [name if name in by else "''" for name in _PLACE[1:]]
    grouped = ", ".join(str(at) for at, column in enumerate(columns, 1) if column not in ("0", "''")) or "1"
    totals = ", ".join(_OF_SUM.get(name, f"sum({name})") for name in _IN_ROW)
    place = ", ".join(columns)
    source = f"usage WHERE {where}"
    if tuple(by) == ("day",):
        hours = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
        source = f"(SELECT hour, {hours}, max(last) AS last, last_cost FROM {source} GROUP BY hour)"  # noqa: S608
    query = (  # with one max(), the other columns are of the row that has it
        f"SELECT {place}, {totals} FROM {source}"  # noqa: S608 - names of ours
        f" GROUP BY {grouped} ORDER BY {grouped}"
    )
    failed = (
        f"SELECT {place}, cause, sum(errors) FROM failures"  # noqa: S608 - names of ours
        f" WHERE {where} GROUP BY {grouped}, cause ORDER BY cause"
    )
    causes = _causes(db.execute(failed, of))
    found = db.execute(query, of)
    return [UsageRow(*values, tuple(causes.get(values[:4], ()))) for values in found]  # type: ignore[call-arg]


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
