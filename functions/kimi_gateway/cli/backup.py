"""kimi-gateway backup: copies the store, also while the server runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

from kimi_gateway.cli.entry import WRONG_USAGE, Failed
from kimi_gateway.cli.selection import at_home
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite import opening

DATED = "kimi-gateway-%Y%m%d-%H%M%S.sqlite3"  # UTC


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--keep",
    type=click.IntRange(1, 10_000),
    help="FILE is a folder: add a file named by its time, and delete the oldest beyond this number.",
)
@click.option(
    "--without-conversations", is_flag=True, help="Leave out answers and reasoning kept for later requests."
)
@json_option
def backup(file: Path, force: bool, keep: int | None, without_conversations: bool, as_json: bool) -> None:
    """Copy accounts, keys, usage and the conversations of the last 24 hours to FILE (mode 0600).

    The copy is complete or not made at all. The server may be running.
    """
    values = at_home(
        "DynamoDB backs up a deployed table itself (docs/operations.md). The command backup copies a file"
    )
    source = values.data / opening.STORE_NAME
    if not source.exists():
        raise Failed(f"There is nothing to copy yet: {source} does not exist.", "no_store")
    if keep is not None:
        folder, file = file, _dated(file)
    if file.resolve() in {source.resolve().with_name(source.name + end) for end in ("", "-wal", "-shm")}:
        raise Failed("FILE is the store itself.", "usage", WRONG_USAGE)
    if file.is_dir() or not file.parent.is_dir():
        raise Failed(f"{file} is not a file in a folder that exists.", "usage", WRONG_USAGE)
    if file.exists() and not force:
        raise Failed(f"{file} exists; --force replaces it.", "exists")
    asyncio.run(_copied(values, file, conversations=not without_conversations))
    if keep is not None:
        _delete_oldest(folder, keep)
    size = file.stat().st_size
    out(as_json, {"file": str(file), "bytes": size}, f"{size} bytes in {file}")


def _dated(folder: Path) -> Path:
    """The next file of a folder of backups. Makes the folder (mode 0700) if there is none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise Failed(f"{folder} is a file; --keep needs a folder.", "usage", WRONG_USAGE) from None
    return folder / datetime.now(UTC).strftime(DATED)


def _delete_oldest(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` of the files that --keep has made. Other files stay."""
    made = sorted(each for each in folder.iterdir() if _made_here(each))
    for each in made[:-keep]:
        each.unlink(missing_ok=True)


def _made_here(file: Path) -> bool:
    try:
        return datetime.strptime(file.name, DATED).replace(tzinfo=UTC).strftime(DATED) == file.name
    except ValueError:
        return False


async def _copied(values: Settings, file: Path, conversations: bool) -> None:
    from kimi_gateway.storage.sqlite.store import SqliteStore

    with opening.using(values.data):
        store = SqliteStore(values.data / opening.STORE_NAME)
        try:
            await store.backup(file, conversations)
        finally:
            await store.close()
