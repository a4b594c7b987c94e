"""kimi-gateway usage: requests, errors, tokens and credits by key, model and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kimi_gateway.accounts.rules import DAY
from kimi_gateway.accounts.values import UsageRow
from kimi_gateway.cli.access import Reference, account_of, ask, reference
from kimi_gateway.cli.show import json_option, out, table, utc

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore

COUNTS = ("requests", "errors", "input", "output", "credits")
NAMES: dict[str, Callable[[UsageRow], str]] = {
    "hour": lambda row: utc(row.hour),
    "day": lambda row: utc(row.hour)[:10],
    "account": lambda row: row.account,
    "key": lambda row: row.key,
    "model": lambda row: row.model,
}
EACH = ("hour", "account", "key", "model")


@click.command("usage")
@click.option("--account", callback=reference, metavar="A", help="Only this account.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=7,
    show_default=True,
    help="Number of days up to today (UTC).",
)
@click.option(
    "--by",
    type=click.Choice(("hour", "key", "model", "day")),
    help="Sum up by this; default: one row for each hour, key and model.",
)
@json_option
def usage(account: Reference | None, days: int, by: str | None, as_json: bool) -> None:
    """Show requests, errors, tokens and credits."""

    async def read(store: TargetStore, now: int) -> tuple[int, list[UsageRow]]:
        since = now - now % DAY - (days - 1) * DAY
        only = None if account is None else (await account_of(store, account, now)).id
        return since, await store.usage(since, only)

    since, found = ask(read)
    names = EACH if by is None else (by,)
    rows, totals = summed(found, names), summed(found, ())
    total = totals[0] if totals else dict.fromkeys(COUNTS, 0) | {"last": None}
    document = {"since": utc(since), "by": by, "rows": rows, "total": total}
    lines = [list(row.values()) for row in rows]
    if lines and by is not None:
        lines.append(["total", *total.values()])
    out(as_json, document, table([name.upper() for name in (*names, *COUNTS, "last")], lines))


def summed(rows: list[UsageRow], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each combination of the columns in `names`, in order of first occurrence."""
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(NAMES[name](row) for name in names)
        start = dict(zip(names, place, strict=True)) | dict.fromkeys(COUNTS, 0) | {"last": ""}
        entry = sums.setdefault(place, start)
        for count in COUNTS:
            entry[count] += getattr(row, count)
        entry["last"] = max(entry["last"], utc(row.last))
    return list(sums.values())
