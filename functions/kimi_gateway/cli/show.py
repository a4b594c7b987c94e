"""Output of commands: one JSON document, or aligned plain text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from kimi_gateway.accounts.documents import (
    account_document,
    amount_of,
    budget_document,
    budget_name,
    credits_of,
    grant_document,
    key_document,
    limits_in_force,
    spent_document,
    state_of,
)
from kimi_gateway.accounts.moments import utc
from kimi_gateway.accounts.values import Account, Key, Spent

__all__ = [
    "account_document",
    "account_text",
    "amount_of",
    "budget_document",
    "budget_name",
    "credits_of",
    "grant_document",
    "json_option",
    "key_document",
    "key_text",
    "keys_table",
    "limits_in_force",
    "out",
    "spent_document",
    "spent_table",
    "state_of",
    "table",
    "utc",
    "warned",
]
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def out(as_json: bool, document: Mapping[str, Any], text: str) -> None:
    click.echo(json.dumps(document) if as_json else text)


def warned(document: Mapping[str, Any], warning: str | None, as_json: bool) -> Mapping[str, Any]:
    """`document` with the warning as a member. Without --json the warning goes to stderr."""
    if warning is None:
        return document
    if not as_json:
        click.echo(f"Warning: {warning}", err=True)
    return {**document, "warning": warning}


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, numbers to the right. An empty value is a dash."""
    if not rows:
        return "none"
    cells = [list(heading), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [any(type(value) is int for value in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def spent_table(spent: Sequence[Spent]) -> str:
    rows = [tuple(each.values()) for each in spent_document(spent)]
    return table(("KEY", "BUDGET", "LIMIT", "SPENT", "RESETS"), rows)


def key_text(key: Key, holder: Account, now: int) -> str:
    document = key_document(key) | {"state": state_of(key, now), "models": " ".join(key.models) or "all"}
    shown = (
        *("id", "account", "name", "state", "models", "expires", "note", "see_balance", "search", "files"),
        *("manages", "made_by", "created"),
    )
    lines = [f"{name:<13}{_cell(document[name])}" for name in shown]
    if key.old_until > now:
        lines.append(f"{'old secret':<13}works until {utc(key.old_until)}")
    limits = [(name, each["limit"], each["source"]) for name, each in limits_in_force(key, holder).items()]
    lines += ["", table(("LIMIT", "IN FORCE", "SOURCE"), limits)]
    if spent := [each for each in holder.spent if each.scope in ("", key.id)]:
        lines += ["", spent_table(spent)]
    return "\n".join(lines)


def keys_table(held: Sequence[Key], now: int) -> str:
    rows = [
        (key.id, key.account, key.name, key.limits.minute, key.limits.hour, key.limits.day, state, made)
        for key in held
        for state, made in [(state_of(key, now), utc(key.created))]
    ]
    return table(("KEY", "ACCOUNT", "NAME", "RPM", "RPH", "RPD", "STATE", "CREATED"), rows)


def account_text(account: Account) -> str:
    fields = {name: value for name, value in account_document(account).items() if name not in LISTS}
    lines = [f"{name:<13}{_cell(value)}" for name, value in fields.items()]
    grants = [(grant.amount, grant_document(grant)["expires"] or "never") for grant in account.grants]
    if grants:
        lines += ["", table(("GRANT LEFT", "EXPIRES"), grants)]
    if account.spent:
        lines += ["", spent_table(account.spent)]
    if account.keys:
        lines += ["", keys_table(account.keys, int(time.time()))]
    return "\n".join(lines)


LISTS = ("budgets", "spent", "grants", "keys")
