"""Records of files on the table.

The kept files of an account are attributes of one item, with their number and their bytes, so its room is
exact; its shared files are those of another one. Each file with an end has an item in one partition for all
accounts. Its sort key begins with that second. A passing file is there whole, the others as pointers.
A pointer may be outdated, since it is written before the record and deleted after it; `due` moves or deletes
such ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

from kimi_gateway.accounts.files import FileRecord, Kind, NoRoom, Room, check_room, in_order
from kimi_gateway.accounts.store import StoreThrottled
from kimi_gateway.accounts.values import NEVER
from kimi_gateway.storage.dynamodb.item import Raw, number
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

if TYPE_CHECKING:
    from kimi_gateway.storage.answers import AnswerStore

DUE = "FILES"
FILES, SIZE = "n", "s"  # of an account's item; a record's attribute is `f` with the file's id
RECORD = "r"  # of an item with an end
ITEMS: dict[Kind, str] = {"kept": "-", "shared": "shared"}  # the sort keys of an account's items
TRIES = 20
FIELDS = len(fields(FileRecord))


class DynamoFiles:
    """`accounts.files.FileStore` on a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def answers(self) -> AnswerStore:
        from kimi_gateway.storage.dynamodb.answers import DynamoAnswers  # few requests need it

        return DynamoAnswers(self._table)

    async def add_file(self, record: FileRecord, room: Room) -> None:
        await add(self._table, record, room)

    async def change_file(self, old: FileRecord, new: FileRecord, room: Room) -> bool:
        return await change(self._table, old, new, room)

    async def remove_file(self, record: FileRecord) -> bool:
        return await remove(self._table, record)

    async def file(self, account: str, id: str, now: int) -> FileRecord | None:
        return await find(self._table, account, id, now)

    async def files(self, account: str, now: int) -> list[FileRecord]:
        return await live(self._table, account, "kept", now)

    async def shared_files(self, account: str, now: int) -> list[FileRecord]:
        return await live(self._table, account, "shared", now)

    async def due_files(self, now: int, most: int) -> list[FileRecord]:
        return await due(self._table, now, most)


async def add(table: Table, record: FileRecord, room: Room) -> None:
    if record.kind == "passing":
        await table.put(DUE, _due_key(record), {RECORD: {"S": _text(record)}})
        return
    check_room(record, 0, 0, room)
    await _point(table, record)
    change = Change(
        sets=["#f = :new"],
        adds=["#n :one", "#s :size"],
        conditions=[
            "attribute_not_exists(#f)",
            "(attribute_not_exists(#n) OR #n < :most)",
            "(attribute_not_exists(#s) OR #s <= :left)",
        ],
        names={"#f": _name(record.id), "#n": FILES, "#s": SIZE},
        values={
            ":new": {"S": _text(record)},
            ":one": number(1),
            ":size": number(record.size),
            ":most": number(room.files),
            ":left": number(room.size - record.size),
        },
    )
    try:
        await table.update(*_item(record), change)
    except Conflict as conflict:
        if _read(conflict.item, record.id) is None:
            await _unpoint(table, record)
            raise _no_room(conflict.item) from None


async def change(table: Table, old: FileRecord, new: FileRecord, room: Room) -> bool:
    if old.kind == "passing":
        return await _change_passing(table, old, new)
    growth = new.size - old.size
    if growth > 0:
        check_room(new, 0, 0, room)
    if old.expires != new.expires:
        await _point(table, new)
    written = Change(
        sets=["#f = :new"],
        adds=["#s :growth"],
        conditions=[_same("#f")],
        names={"#f": _name(old.id), "#s": SIZE},
        values={":new": {"S": _text(new)}, **_as_read(old), ":growth": number(growth)},
    )
    if growth > 0:
        written.conditions.append("#s <= :left")
        written.values[":left"] = number(room.size - growth)
    try:
        await table.update(*_item(old), written)
    except Conflict as conflict:
        found = _read(conflict.item, old.id)
        if found == old:
            if old.expires != new.expires:
                await _unpoint(table, new)
            raise _no_room(conflict.item, old) from None
        return found == new  # our own earlier write, whose answer was lost
    if old.expires != new.expires:
        await _unpoint(table, old)
    return True


async def _change_passing(table: Table, old: FileRecord, new: FileRecord) -> bool:
    """One write decides, at the old key; then the item moves to the new one."""
    written = Change(
        sets=["#r = :new"],
        conditions=[_same("#r")],
        names={"#r": RECORD},
        values={":new": {"S": _text(new)}, **_as_read(old)},
    )
    try:
        await table.update(DUE, _due_key(old), written)
    except Conflict as conflict:
        if conflict.item is None or conflict.item[RECORD]["S"] != _text(new):
            return False
    await _moved(table, _due_key(old), new)
    return True


async def _moved(table: Table, key: str, record: FileRecord) -> None:
    if key != _due_key(record):
        await table.put(DUE, _due_key(record), {RECORD: {"S": _text(record)}})
        await table.delete(DUE, key)


async def remove(table: Table, record: FileRecord) -> bool:
    if record.kind == "passing":
        there = await table.get(DUE, _due_key(record))
        await table.delete(DUE, _due_key(record))
        return there is not None
    known: FileRecord | None = record
    for _ in range(TRIES):
        if known is None:
            return False
        gone = Change(
            removes=["#f"],
            adds=["#n :one", "#s :size"],
            conditions=[_same("#f")],
            names={"#f": _name(record.id), "#n": FILES, "#s": SIZE},
            values={**_as_read(known), ":one": number(-1), ":size": number(-known.size)},
        )
        try:
            await table.update(*_item(record), gone)
        except Conflict as conflict:
            known = _read(conflict.item, record.id)
            continue
        await _unpoint(table, known)
        return True
    raise StoreThrottled("others changed the file each time it was tried")


async def find(table: Table, account: str, id: str, now: int) -> FileRecord | None:
    record = _read(await table.get(_partition(account), ITEMS["kept"]), id)
    return record if record and record.live(now) else None


async def live(table: Table, account: str, kind: Kind, now: int) -> list[FileRecord]:
    item = await table.get(_partition(account), ITEMS[kind]) or {}
    records = [_record(value["S"]) for name, value in item.items() if name.startswith("f")]
    return in_order(record for record in records if record.live(now))


async def due(table: Table, now: int, most: int) -> list[FileRecord]:
    found = []
    for item in await table.query(DUE, before=f"{now + 1:010d}", most=most):
        key, record = item["sk"]["S"], _record(item[RECORD]["S"])
        if record.kind != "passing":
            current = _read(await table.get(*_item(record)), record.id)
            if current is None or _due_key(current) != key:
                await table.delete(DUE, key)
                continue
            record = current
        if record.expires > now:
            await _moved(table, key, record)
        else:
            found.append(record)
    return found


async def _point(table: Table, record: FileRecord) -> None:
    if record.expires < NEVER:
        await table.put(DUE, _due_key(record), {RECORD: {"S": _text(record)}})


async def _unpoint(table: Table, record: FileRecord) -> None:
    if record.expires < NEVER:
        await table.delete(DUE, _due_key(record))


def _no_room(item: Mapping[str, Any] | None, without: FileRecord | None = None) -> NoRoom:
    item = item or {}
    files, size = (int(item[name]["N"]) if name in item else 0 for name in (FILES, SIZE))
    return NoRoom(files, size) if without is None else NoRoom(files - 1, size - without.size)


def _read(item: Mapping[str, Any] | None, id: str) -> FileRecord | None:
    value = (item or {}).get(_name(id))
    return _record(value["S"]) if value else None


def _partition(account: str) -> str:
    return f"F#{account}"


def _item(record: FileRecord) -> tuple[str, str]:
    """The keys of the account's item with the record."""
    return _partition(record.account), ITEMS[record.kind]


def _name(id: str) -> str:
    return f"f{id}"


def _due_key(record: FileRecord) -> str:
    return f"{record.expires:010d} {record.account} {record.id}"


def _text(record: FileRecord) -> str:
    return json.dumps(astuple(record), ensure_ascii=False, separators=(",", ":"))


def _record(text: str) -> FileRecord:
    """A later release may have added fields at the end."""
    return FileRecord(*json.loads(text)[:FIELDS])


def _same(name: str) -> str:
    """The condition that a stored text is the record of `_as_read`, whatever fields follow."""
    return f"({name} = :old OR begins_with({name}, :older))"


def _as_read(record: FileRecord) -> Raw:
    text = _text(record)
    return {":old": {"S": text}, ":older": {"S": f"{text[:-1]},"}}
