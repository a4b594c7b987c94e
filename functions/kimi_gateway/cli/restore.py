"""kimi-gateway restore: a backup in place of the database."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import click

from kimi_gateway.cli.entry import NOT_FOUND, WRONG_USAGE, Failed, program
from kimi_gateway.cli.serving import servers
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.cli.target import at_home
from kimi_gateway.storage.sqlite import database, opening


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Put a backup (FILE) in place of the database. The database that was there is kept beside it.

    The server must be stopped. The keys, balances and usage are then those of the backup.
    """
    values = at_home(
        "A deployed table is restored by DynamoDB itself (docs/operations.md); restore takes a file"
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
        text = "Another kimi-gateway process uses the database now. Stop the server, then try again."
        raise Failed(text, "running") from None
    document = {"file": str(file), "restored": str(store), "kept": None if kept is None else str(kept)}
    lines = [f"{file} is the database now."]
    if kept is not None:
        lines.append(f"The one before is kept: {kept}")
    out(as_json, document, "\n".join(lines))


def _refuse_running(folder: Path) -> None:
    for server in servers(folder):
        text = f"The gateway runs on {server.address} (pid {server.pid}). Stop it first: kill {server.pid}"
        raise Failed(text, "running")


def _refuse_left_over(store: Path) -> None:
    """What stands in a write-ahead log would be lost, or be taken for a part of the new database."""
    log = store.with_name(f"{store.name}-wal")
    if log.exists():
        raise Failed(
            f"{log} is left over from a process that was killed, or another program has the database open."
            f" End that program. Then take what is in the log into the database: {program()} accounts list"
            " - and restore again.",
            "left_over",
        )


def _replaced(file: Path, store: Path) -> Path | None:
    """Whole or not at all: at each moment there is a database in its place. Where the old one is kept."""
    try:
        copy = database.checked_copy(file, store)
    except database.NotOurs as exc:
        raise Failed(
            f"{file} is no backup of this gateway: {exc}. Nothing was changed.", "no_backup"
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
    """A second name of the database, free until now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(100):
        kept = store.with_name(f"{store.name}.before-{stamp}" + (f"-{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            os.link(store, kept)
            return kept
    raise FileExistsError(f"{store}.before-{stamp}")
