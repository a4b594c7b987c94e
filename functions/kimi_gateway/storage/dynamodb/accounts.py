"""Accounts and keys in DynamoDB, and their lookup by id, name and digest.

A#<account>  -           the hot item (storage/dynamodb/item.py)
             info        name, time of creation
             K#<short>   a key; whether it is valid is in the hot item's `ks`
K#<digest>   -           the id and account of the key with this digest
I#<key id>   -           the digest
N#<name>     <account>   accounts by name
ACCOUNTS     <account>   all of them
H#<account>  <hour>      usage of past hours (storage/dynamodb/history.py)

No step needs a transaction. A key becomes valid with the last write of its creation. An interrupted creation
leaves a key that was never valid, or an account that is missing from ACCOUNTS. A change writes the key with a
higher version first, then this version and the next generation into the hot item. So a
reader of the new generation also reads the new key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import Ambiguous, StoreDown, Taken, Unknown
from kimi_gateway.accounts.values import NEVER, Account, Key, Limits, NewKey
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, kid, number, partition
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

INFO = "info"
EVERY = "ACCOUNTS"
DRAWN = 20  # ids tried for a key
SHORT = 8  # of them with a short form of two characters


async def add_account(table: Table, account: str, name: str, hot: Raw, now: int) -> None:
    info: Raw = {"name": {"S": name}, "created": number(now)}
    await table.put(partition(account), HOT, hot)
    await table.put(partition(account), INFO, info)
    await table.put(f"N#{name}", account, {})
    await table.put(EVERY, account, {})


async def image_of(table: Table, account: str) -> Image | None:
    raw = await table.get(partition(account))
    return Image(raw) if raw is not None else None


async def add_key(table: Table, new: NewKey, now: int, draw: Callable[[int], str]) -> tuple[Key, Image]:
    """The key with its id, and its account's image. Raises Unknown, Taken."""
    image = await image_of(table, new.account)
    if image is None:
        raise Unknown(new.account)
    key = await _place(table, new, now, draw, image)
    short = kid(key.id)
    try:
        pointer: Raw = {"id": {"S": key.id}, "account": {"S": key.account}}
        await table.put_new(f"K#{key.digest}", HOT, pointer, "id")
    except Conflict:
        await table.delete(partition(key.account), f"K#{short}")
        raise Taken from None
    await table.put(f"I#{key.id}", HOT, {"digest": {"S": key.digest}})
    alive = Change(adds=["ks :kid"], conditions=["attribute_exists(pk)"], values={":kid": {"SS": [short]}})
    image = Image(await table.update(partition(key.account), HOT, alive))
    return _key(_record(key), image), image


async def _place(table: Table, new: NewKey, now: int, draw: Callable[[int], str], image: Image) -> Key:
    """The key with an id whose short form no key of the account ever had. Where most of the forms of two
    characters are taken, it gets one of four."""
    for drawn in range(DRAWN):
        key = rules.made(new, draw(drawn), now)
        if not image.has_key(key.id):
            try:
                await table.put_new(partition(key.account), f"K#{kid(key.id)}", _record(key), "id")
                return key
            except Conflict:
                continue
    raise StoreDown("no free id was found for another key of the account")


async def find_key(table: Table, digest: str) -> tuple[Key, Image] | None:
    pointer = await table.get(f"K#{digest}")
    found = None if pointer is None else await _read(table, pointer)
    key = None if found is None else rules.found_by(found[0], digest)
    return None if found is None or key is None else (key, found[1])


async def _read(table: Table, pointer: Raw) -> tuple[Key, Image] | None:
    """A key in the version of its account's image, or newer. None if its creation was interrupted."""
    account, short = pointer["account"]["S"], kid(pointer["id"]["S"])
    while True:
        record, image = await asyncio.gather(
            table.get(partition(account), f"K#{short}"), image_of(table, account)
        )
        if record is None or image is None:
            return None
        if _version(record) >= image.number(f"v{short}"):
            return _key(record, image), image


def _version(record: Raw) -> int:
    return int(record["v"]["N"]) if "v" in record else 0


async def pointer_to(table: Table, key: str) -> Raw:
    """By id or digest. Raises Unknown."""
    pointer, id = await asyncio.gather(table.get(f"K#{key}"), table.get(f"I#{key}"))
    if id is not None:
        pointer = await table.get(f"K#{id['digest']['S']}")
    if pointer is None:
        raise Unknown(key)
    return pointer


async def end_key(table: Table, key: str) -> tuple[Key, Image]:
    """By id or digest. Raises Unknown."""
    pointer = await pointer_to(table, key)
    account, short = pointer["account"]["S"], kid(pointer["id"]["S"])
    ended = Change(
        adds=["kg :one"],
        deletes=["ks :kid"],
        conditions=["attribute_exists(pk)"],
        values={":one": number(1), ":kid": {"SS": [short]}},
    )
    image = Image(await table.update(partition(account), HOT, ended))
    record = await table.get(partition(account), f"K#{short}")
    if record is None:
        raise Unknown(key)
    return _key(record, image), image


async def change_key(table: Table, key: str, change: Callable[[Key], Key]) -> tuple[Key, Image] | None:
    """Change a key, by id or digest; None if another change came between. Raises Unknown."""
    pointer = await pointer_to(table, key)
    account, short = pointer["account"]["S"], kid(pointer["id"]["S"])
    record, image = await asyncio.gather(
        table.get(partition(account), f"K#{short}"), image_of(table, account)
    )
    if record is None or image is None:
        raise Unknown(key)
    old, version = _key(record, image), _version(record)
    wanted = _record(change(old)) | {"v": number(version + 1)}
    try:
        await table.update(partition(account), f"K#{short}", _replaced(record, wanted, version))
        known = Change(
            sets=["#v = :v"],
            adds=["kg :one"],
            conditions=["attribute_exists(pk)", "(attribute_not_exists(#v) OR #v < :v)"],
            names={"#v": f"v{short}"},
            values={":v": number(version + 1), ":one": number(1)},
        )
        image = Image(await table.update(partition(account), HOT, known))
    except Conflict:
        return None
    return _key(wanted, image), image


async def add_digest(table: Table, key: str, digest: str) -> None:
    """Add a digest to a key (by id or digest). Raises Unknown, Taken."""
    pointer = await pointer_to(table, key)
    try:
        await table.put_new(f"K#{digest}", HOT, {name: pointer[name] for name in ("id", "account")}, "id")
    except Conflict:
        raise Taken from None


async def rename(table: Table, account: str, name: str) -> None:
    """Rename an account. In this order an interrupted call can be repeated. Raises Unknown."""
    info = await table.get(partition(account), INFO)
    if info is None:
        raise Unknown(account)
    old = info["name"]["S"]
    if old != name:
        await table.put(f"N#{name}", account, {})
        await table.delete(f"N#{old}", account)
        await table.put(partition(account), INFO, info | {"name": {"S": name}})


async def remove(table: Table, account: str) -> None:
    """Delete an account: the hot item first, which ends every key at once, and `info` last, so that an
    interrupted call can be repeated. Cache entries end with their time. Raises Unknown."""
    items = {item["sk"]["S"]: item for item in await table.query(partition(account))}
    if INFO not in items:
        raise Unknown(account)
    await table.delete(partition(account), HOT)
    await table.delete(EVERY, account)
    await table.delete(f"N#{items[INFO]['name']['S']}", account)
    for hour in await table.query(f"H#{account}"):
        await table.delete(f"H#{account}", hour["sk"]["S"])
    for sk, record in items.items():
        if sk.startswith("K#"):
            for digest in {record["digest"]["S"], record.get("old", {"S": ""})["S"]} - {""}:
                await table.delete(f"K#{digest}", HOT)
            await table.delete(f"I#{record['id']['S']}", HOT)
            await table.delete(partition(account), sk)
    await table.delete(partition(account), INFO)


def _replaced(record: Raw, wanted: Raw, version: int) -> Change:
    """`wanted` in place of a record of that version."""
    change = Change(
        conditions=["attribute_exists(pk)", "(attribute_not_exists(v) OR v = :old)"],
        values={":old": number(version)},
    )
    for place, name in enumerate(sorted({*record, *wanted} - {"pk", "sk"})):
        change.names[f"#n{place}"] = name
        if name in wanted:
            change.sets.append(f"#n{place} = :n{place}")
            change.values[f":n{place}"] = wanted[name]
        else:
            change.removes.append(f"#n{place}")
    return change


async def resolve(table: Table, name: str) -> str:
    """The account's id, from its id, its name, or a key's id or digest. Raises Unknown, Ambiguous."""
    hot, named, pointer, record = await asyncio.gather(
        table.get(partition(name)), table.query(f"N#{name}"), table.get(f"I#{name}"), table.get(f"K#{name}")
    )
    fitting = {item["sk"]["S"] for item in named}
    if hot is not None:
        fitting.add(name)
    if pointer is not None:
        record = await table.get(f"K#{pointer['digest']['S']}")
    if record is not None:
        fitting.add(record["account"]["S"])
    if len(fitting) > 1:
        raise Ambiguous(name, fitting)
    if not fitting:
        raise Unknown(name)
    return str(fitting.pop())


async def every(table: Table) -> list[str]:
    return [item["sk"]["S"] for item in await table.query(EVERY)]


@dataclass(frozen=True, slots=True)
class Held:
    """All items of an account."""

    id: str
    image: Image
    name: str
    created: int
    records: list[Raw]

    @property
    def keys(self) -> tuple[Key, ...]:
        held = [_key(record, self.image) for record in self.records]
        return tuple(sorted(held, key=lambda key: (key.created, key.id)))

    def ids(self) -> dict[str, str]:
        """Key ids by short id."""
        return {kid(record["id"]["S"]): record["id"]["S"] for record in self.records}


async def held(table: Table, account: str) -> Held:
    """All items of `account`. Raises Unknown."""
    items = {item["sk"]["S"]: item for item in await table.query(partition(account))}
    if HOT not in items or INFO not in items:
        raise Unknown(account)
    info = items[INFO]
    records = [item for sk, item in items.items() if sk.startswith("K#")]
    return Held(account, Image(items[HOT]), info["name"]["S"], int(info["created"]["N"]), records)


def shown(held: Held, now: int) -> Account:
    """The account at `now`, without expired grants and with the credits of ended leases, whether or not that
    is written."""
    ended = held.image.ended(now)
    balance = rules.returned(held.image.balance, sum(lease.cost for lease in ended.values()), now)
    reserved = sum(lease.cost for name, lease in held.image.leases().items() if name not in ended)
    return Account(
        id=held.id,
        name=held.name,
        unlimited=held.image.unlimited,
        credits=balance.spendable + reserved,
        reserved=reserved,
        consumed=balance.consumed,
        expired=balance.expired,
        created=held.created,
        grants=rules.unspent(balance),
        keys=held.keys,
    )


def _record(key: Key) -> Raw:
    own = {"m": key.limits.minute, "h": key.limits.hour, "d": key.limits.day}
    record: Raw = {
        "id": {"S": key.id},
        "digest": {"S": key.digest},
        "account": {"S": key.account},
        "name": {"S": key.name},
        "sees": {"BOOL": key.see_balance},
        "created": number(key.created),
        "models": {"S": " ".join(key.models)},
        "expires": number(key.expires),
        "note": {"S": key.note},
        "off": {"BOOL": key.suspended},
        "old": {"S": key.old_digest},
        "until": number(key.old_until),
    }
    return record | {letter: number(limit) for letter, limit in own.items() if limit is not None}


def _key(record: Raw, image: Image) -> Key:
    minute, hour, day = (int(record[letter]["N"]) if letter in record else None for letter in "mhd")
    id = record["id"]["S"]
    return Key(
        id=id,
        digest=record["digest"]["S"],
        account=record["account"]["S"],
        name=record["name"]["S"],
        limits=Limits(minute, hour, day),
        see_balance=record["sees"]["BOOL"],
        revoked=not image.has_key(id),
        created=int(record["created"]["N"]),
        generation=image.generation,
        models=tuple(record["models"]["S"].split()) if "models" in record else (),
        expires=int(record["expires"]["N"]) if "expires" in record else NEVER,
        note=record["note"]["S"] if "note" in record else "",
        suspended="off" in record and record["off"]["BOOL"],
        old_digest=record["old"]["S"] if "old" in record else "",
        old_until=int(record["until"]["N"]) if "until" in record else 0,
    )
