"""What the gateway keeps at home: one folder for its owner only, with the store's file in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.accounts.sqlite import SqliteStore

STORE_NAME = "gateway.sqlite3"


def prepare_data(folder: Path) -> None:
    """The data folder, for its owner only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def open_store(settings: Settings) -> SqliteStore:
    """SQLite in the data folder. Raises StoreDown, OSError."""
    from kimi_gateway.accounts.sqlite import SqliteStore

    prepare_data(settings.data)
    return SqliteStore(settings.data / STORE_NAME)
