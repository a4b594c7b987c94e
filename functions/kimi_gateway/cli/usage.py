"""kimi-gateway usage: requests, errors, tokens, credits and cost by key, account, model and time."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.rules import DAY
from kimi_gateway.accounts.usage_report import counted, described, since_of, total
from kimi_gateway.accounts.values import UsageRow
from kimi_gateway.cli.access import Reference, account_of, ask, reference
from kimi_gateway.cli.show import json_option, out, table

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore

EACH = ("hour", "account", "key", "model")
SHOWN = ("requests", "errors", "input", "cached", "output", "credits", "cost_usd", "saved_usd", "last")
SORTS = ("requests", "errors", "input", "output", "credits", "cost", "saved")


def _since(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is not None:
        try:
            since_of(text, 0)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from exc
    return text


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
    "--since", callback=_since, metavar="T", help="From then on: 24h, 7d, 4w, or a date. Replaces --days."
)
@click.option(
    "--by",
    type=click.Choice(("hour", "key", "account", "model", "day")),
    help="Sum up by this; default: one row for each hour, key and model.",
)
@click.option("--sort", type=click.Choice(SORTS), help="Largest first; default: by time, or by name.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@json_option
def usage(
    account: Reference | None,
    days: int,
    since: str | None,
    by: str | None,
    sort: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show requests, errors, tokens, credits and cost at list prices (USD)."""
    columns = EACH if by is None else (by,)

    async def read(store: TargetStore, now: int) -> tuple[int, list[UsageRow], dict[str, str]]:
        start = now - now % DAY - (days - 1) * DAY if since is None else since_of(since, now)
        only = None if account is None else (await account_of(store, account, now)).id
        found = await store.usage_sums(start, columns, only)
        named = {"account", "key"} & set(columns)
        return start, found, await names_of(store, now) if named and found else {}

    start, rows, names = ask(read)
    if sort is not None:
        rows = sorted(rows, key=lambda row: -getattr(row, sort))
    documents = [described(row, columns, names) for row in rows]
    totals = counted(total(rows))
    if as_csv and as_json:
        raise click.UsageError("Give either --json or --csv.")
    if as_csv:
        click.echo(_csv(columns, documents, totals), nl=False)
        return
    document = {"since": utc(start), "by": by, "rows": documents, "total": totals}
    out(as_json, document, _table(columns, documents, totals if by is not None else None))


async def names_of(store: TargetStore, now: int) -> dict[str, str]:
    """The names of accounts and keys, by id."""
    names = {}
    for each in await store.accounts(now):
        names[each.id] = each.name
        names |= {key.id: key.name for key in each.keys}
    return names


def _headed(columns: Sequence[str]) -> list[str]:
    """The columns with those of names beside them."""
    return [
        each
        for name in columns
        for each in ((name, f"{name}_name") if name in ("account", "key") else (name,))
    ]


def _table(
    columns: Sequence[str], documents: Sequence[Mapping[str, Any]], totals: Mapping[str, Any] | None
) -> str:
    headed = _headed(columns)
    heading = [name.removesuffix("_name").upper() if name[-5:] != "_name" else "NAME" for name in headed]
    lines = [[document[name] for name in (*headed, *SHOWN)] for document in documents]
    if lines and totals is not None:
        lines.append(["total", *[""] * (len(headed) - 1), *(totals[name] for name in SHOWN)])
    return table([*heading, *(name.removesuffix("_usd").upper() for name in SHOWN)], lines)


def _csv(columns: Sequence[str], documents: Sequence[Mapping[str, Any]], totals: Mapping[str, Any]) -> str:
    """With a heading; causes of errors are in a column each, after the others."""
    written = io.StringIO()
    causes = sorted(totals["causes"])
    counts = [name for name in totals if name != "causes"]
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow([*_headed(columns), *counts, *(f"errors_{cause}" for cause in causes)])
    for document in documents:
        values = [document[name] for name in (*_headed(columns), *counts)]
        rows.writerow([_safe(value) for value in values] + [document["causes"].get(c, 0) for c in causes])
    return written.getvalue()


def _safe(value: object) -> object:
    """A name that a spreadsheet would run as a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
