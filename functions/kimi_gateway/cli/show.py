"""Output of commands: one JSON document, or aligned plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from kimi_gateway.accounts.values import NEVER, Account, Grant, Key

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


def utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def credits_of(account: Account) -> int | str:
    return "unlimited" if account.unlimited else account.credits


def grant_document(grant: Grant) -> dict[str, Any]:
    return {"amount": grant.amount, "expires": None if grant.expires >= NEVER else utc(grant.expires)}


def key_document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "account": key.account,
        "name": key.name,
        "limits": {"rpm": key.limits.minute, "rph": key.limits.hour, "rpd": key.limits.day},
        "see_balance": key.see_balance,
        "revoked": key.revoked,
        "created": utc(key.created),
    }


def account_document(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "unlimited": account.unlimited,
        "credits": credits_of(account),
        "reserved": account.reserved,
        "consumed": account.consumed,
        "expired": account.expired,
        "created": utc(account.created),
        "grants": [grant_document(grant) for grant in account.grants],
        "keys": [key_document(key) for key in account.keys],
    }


def keys_table(held: Sequence[Key]) -> str:
    rows = [
        (key.id, key.account, key.name, key.limits.minute, key.limits.hour, key.limits.day, state, made)
        for key in held
        for state, made in [("revoked" if key.revoked else "active", utc(key.created))]
    ]
    return table(("KEY", "ACCOUNT", "NAME", "RPM", "RPH", "RPD", "STATE", "CREATED"), rows)


def account_text(account: Account) -> str:
    fields = {name: value for name, value in account_document(account).items() if name not in LISTS}
    lines = [f"{name:<11}{_cell(value)}" for name, value in fields.items()]
    grants = [(grant.amount, grant_document(grant)["expires"] or "never") for grant in account.grants]
    if grants:
        lines += ["", table(("GRANT LEFT", "EXPIRES"), grants)]
    if account.keys:
        lines += ["", keys_table(account.keys)]
    return "\n".join(lines)


LISTS = ("grants", "keys")
