"""kimi-gateway export and import: accounts as lines of JSON, between any two stores."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kimi_gateway.accounts import moving
from kimi_gateway.accounts.moving import BadExport, Moved
from kimi_gateway.accounts.store import Taken
from kimi_gateway.cli.access import ask
from kimi_gateway.cli.entry import NOT_FOUND, WRONG_USAGE, Failed
from kimi_gateway.cli.progress import Step, counted, progress
from kimi_gateway.cli.selection import target
from kimi_gateway.cli.show import json_option, out, warned
from kimi_gateway.private_file import replace_file
from kimi_gateway.storage.sqlite.database import sync_folder

if TYPE_CHECKING:
    from kimi_gateway.cli.target import TargetStore


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def export(file: Path, force: bool, as_json: bool) -> None:
    """Write accounts, keys (as hashes), grants, budgets and usage to FILE (mode 0600).

    FILE is complete or not made at all. To move a gateway, stop it first: what it does later is not in FILE.
    """
    if file.is_dir() or not file.parent.is_dir():
        raise Failed(f"{file} is not a file in a folder that exists.", "usage", WRONG_USAGE)
    if file.exists() and not force:
        raise Failed(f"{file} exists; --force replaces it.", "exists")
    if not target().begun():
        raise Failed("There is nothing to export yet: there is no store.", "no_store")

    async def read(store: TargetStore, now: int) -> tuple[int, int, int]:
        accounts, usage, _ = snapshot = await store.moving().snapshot(now)
        with progress("lines written") as step:
            _write(file, counted(moving.lines(snapshot, now), step))
        return len(accounts), len(usage), sum(account.reserved for account in accounts)

    accounts, rows, reserved = ask(read)
    document = {"file": str(file), "accounts": accounts, "usage": rows, "reserved": reserved}
    warning = f"{reserved} credits are reserved for requests that run. They come back in the new store."
    shown = warned(document, warning if reserved else None, as_json)
    out(as_json, shown, f"{accounts} accounts and {rows} rows of usage in {file}")


def _write(file: Path, lines: Iterator[str]) -> None:
    replace_file(file, lines)
    sync_folder(file.parent)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_(file: Path, as_json: bool) -> None:
    """Put the accounts of an export (FILE) into the store, with their ids and keys.

    Accounts that an earlier import of FILE put there are left as they are, so an interrupted import can be
    repeated. Other accounts of the store are not touched. An account or key that the store has from elsewhere
    ends the import.
    """
    if not file.is_file():
        raise Failed(f"There is no file {file}.", "not_found", NOT_FOUND)
    try:
        with progress("accounts checked") as step:
            for _ in counted(_read(file), step):  # the whole file is checked before anything is written
                pass
        put, known = ask(partial(_put, file))
    except BadExport as exc:
        raise Failed(f"{file} is not a complete export: {exc}. Nothing was changed.", "no_export") from None
    text = f"{put} accounts imported" + (f", {known} were there already" if known else "")
    out(as_json, {"file": str(file), "imported": put, "known": known}, text)


def _read(file: Path) -> Iterator[Moved]:
    with file.open("rb") as lines:
        yield from moving.checked(lines)


async def _put(file: Path, store: TargetStore, now: int) -> tuple[int, int]:
    with progress("accounts imported") as step:
        return await _restored(file, store, now, step)


async def _restored(file: Path, store: TargetStore, now: int, step: Step) -> tuple[int, int]:
    mover, put, known = store.moving(), 0, 0
    for moved in counted(_read(file), step):
        try:
            if await mover.restore(moved, now):
                put += 1
            else:
                known += 1
        except Taken as exc:
            account = moved.account
            raise Failed(
                f"{exc} exists already and is not from this file, so account {account.name!r} ({account.id})"
                f" was not imported. {put} accounts before it were. Delete the one in the store"
                " (accounts delete) or import into another store; then repeat the import.",
                "exists",
            ) from None
    return put, known
