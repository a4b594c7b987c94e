"""Records of files in SQLite, as steps of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, fields
from typing import Any

from kimi_gateway.accounts.files import FileRecord, Kind, Room, check_room

_NAMES = tuple(each.name for each in fields(FileRecord))
_COLUMNS = ", ".join(_NAMES)
_PUT = f"INSERT OR REPLACE INTO files ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM files WHERE "  # noqa: S608
_OTHERS = "SELECT count(*), coalesce(sum(size), 0) FROM files WHERE account = ? AND kind = ? AND id != ?"
_LIVE = " AND kind = ? AND state != 'deleting' AND expires > ?"


def add(db: sqlite3.Connection, record: FileRecord, room: Room) -> None:
    if _found(db, record) is None:
        check_room(record, *_others(db, record), room)
        db.execute(_PUT, astuple(record))


def change(db: sqlite3.Connection, old: FileRecord, new: FileRecord, room: Room) -> bool:
    if _found(db, old) != old:
        return False
    if new.size > old.size:
        check_room(new, 0, _others(db, old)[1], room)
    db.execute(_PUT, astuple(new))
    return True


def _found(db: sqlite3.Connection, record: FileRecord) -> FileRecord | None:
    rows = db.execute(_ALL + "account = ? AND id = ?", (record.account, record.id))
    return next(iter(_records(rows)), None)


def _others(db: sqlite3.Connection, record: FileRecord) -> tuple[int, int]:
    """The number and the bytes of the account's other files of this kind."""
    files, size = db.execute(_OTHERS, (record.account, record.kind, record.id)).fetchone()
    return files, size


def leave(db: sqlite3.Connection, account: str) -> None:
    """The account is deleted. Passing files end with their turns."""
    ended = "SET state = 'deleting', expires = CASE state WHEN 'uploading' THEN expires ELSE 0 END"
    db.execute(f"UPDATE files {ended} WHERE account = ? AND kind != 'passing'", (account,))


def remove(db: sqlite3.Connection, record: FileRecord) -> bool:
    gone = db.execute("DELETE FROM files WHERE account = ? AND id = ?", (record.account, record.id))
    return gone.rowcount == 1


def find(db: sqlite3.Connection, account: str, id: str, now: int) -> FileRecord | None:
    rows = db.execute(f"{_ALL} account = ? AND id = ? {_LIVE}", (account, id, "kept", now))
    return next(iter(_records(rows)), None)


def live(db: sqlite3.Connection, account: str, kind: Kind, now: int) -> list[FileRecord]:
    return _records(db.execute(f"{_ALL} account = ? {_LIVE} ORDER BY created, id", (account, kind, now)))


def due(db: sqlite3.Connection, now: int, most: int) -> list[FileRecord]:
    return _records(db.execute(f"{_ALL} expires <= ? ORDER BY expires, id LIMIT ?", (now, most)))


def _records(rows: Iterable[tuple[Any, ...]]) -> list[FileRecord]:
    return [FileRecord(*row) for row in rows]
