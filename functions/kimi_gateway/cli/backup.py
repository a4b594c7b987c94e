"""kimi-gateway backup: copies the store, also while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from kimi_gateway.cli.entry import WRONG_USAGE, Failed
from kimi_gateway.cli.selection import at_home
from kimi_gateway.cli.show import json_option, out
from kimi_gateway.settings import Settings
from kimi_gateway.storage.sqlite import opening


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--without-conversations", is_flag=True, help="Leave out answers and reasoning kept for later requests."
)
@json_option
def backup(file: Path, force: bool, without_conversations: bool, as_json: bool) -> None:
    """Copy accounts, keys, usage and the conversations of the last 24 hours to FILE (mode 0600).

    The copy is complete or not made at all. The server may be running.
    """
    values = at_home(
        "DynamoDB backs up a deployed table itself (docs/operations.md). The command backup copies a file"
    )
    source = values.data / opening.STORE_NAME
    if not source.exists():
        raise Failed(f"There is nothing to copy yet: {source} does not exist.", "no_store")
    if file.resolve() in {source.resolve().with_name(source.name + end) for end in ("", "-wal", "-shm")}:
        raise Failed("FILE is the store itself.", "usage", WRONG_USAGE)
    if file.is_dir() or not file.parent.is_dir():
        raise Failed(f"{file} is not a file in a folder that exists.", "usage", WRONG_USAGE)
    if file.exists() and not force:
        raise Failed(f"{file} exists; --force replaces it.", "exists")
    asyncio.run(_copied(values, file, conversations=not without_conversations))
    size = file.stat().st_size
    out(as_json, {"file": str(file), "bytes": size}, f"{size} bytes in {file}")


async def _copied(values: Settings, file: Path, conversations: bool) -> None:
    from kimi_gateway.storage.sqlite.store import SqliteStore

    with opening.using(values.data):
        store = SqliteStore(values.data / opening.STORE_NAME)
        try:
            await store.backup(file, conversations)
        finally:
            await store.close()
