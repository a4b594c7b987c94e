"""kimi-gateway restore: replaces the database with a backup."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import click

from kimi_gateway.cli.entry import NOT_FOUND, WRONG_USAGE, Failed, program
from kimi_gateway.cli.selection import at_home
from kimi_gateway.cli.serving import servers
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.storage.sqlite import database, opening


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Replace the database with a backup (FILE). The old database is kept beside it.

    Stop the server first. Keys, balances and usage are then those of the backup.
    """
    values = at_home(
        "DynamoDB restores a deployed table itself (docs/operations.md). The command restore needs a file"
    )
    store = values.data / opening.STORE_NAME
    if not file.is_file():
        raise Failed(f"There is no file {file}.", "not_found", NOT_FOUND)
    if store.exists() and file.samefile(store):
        raise Failed("FILE is the store itself.", "usage", WRONG_USAGE)
    _refuse_running(values.data)
    opening.prepare_data(values.data)
    try:
        with opening.using(values.data, alone=True):
            _refuse_left_over(store)
            kept = _replaced(file, store)
    except opening.InUse:
        text = "Another kimi-gateway process is using the database. Stop the server, then try again."
        raise Failed(text, "running") from None
    document = {"file": str(file), "restored": str(store), "kept": None if kept is None else str(kept)}
    lines = [f"{file} is the database now."]
    if kept is not None:
        lines.append(f"The old database is kept: {kept}")
    out(as_json, document, "\n".join(lines))


def _refuse_running(folder: Path) -> None:
    for server in servers(folder):
        text = f"The gateway runs on {server.address} (pid {server.pid}). Stop it first: kill {server.pid}"
        raise Failed(text, "running")


def _refuse_left_over(store: Path) -> None:
    """Raises Failed if a write-ahead log exists: it would be lost or applied to the new database."""
    log = store.with_name(f"{store.name}-wal")
    if log.exists():
        raise Failed(
            f"{log} is left over from a process that was killed, or another program has the database open."
            f" End that program. Then load the log into the database: {program()} accounts list"
            " - and restore again.",
            "left_over",
        )


def _replaced(file: Path, store: Path) -> Path | None:
    """Replace `store` by a checked copy of `file` in one step. Returns the path of the old database, if any.
    Raises Failed if `file` is not a backup."""
    try:
        copy = database.checked_copy(file, store)
    except database.NotOurs as exc:
        raise Failed(
            f"{file} is not a backup of this gateway: {exc}. Nothing was changed.", "no_backup"
        ) from None
    try:
        kept = None
        if store.exists():
            kept = _kept_beside(store)
        os.replace(copy, store)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    database.sync_folder(store.parent)
    return kept


def _kept_beside(store: Path) -> Path:
    """Give the database a second, unused name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(100):
        kept = store.with_name(f"{store.name}.before-{stamp}" + (f"-{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            os.link(store, kept)
            return kept
    raise FileExistsError(f"{store}.before-{stamp}")
