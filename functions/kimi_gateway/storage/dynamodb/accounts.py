"""Accounts and keys in DynamoDB, and their lookup by id, name and digest.

A#<account>  -           the hot item (storage/dynamodb/item.py)
             info        name, time of creation
             K#<short>   a key; whether it is valid is in the hot item's `ks`
K#<digest>   -           the same key, by its digest
I#<key id>   -           the digest
N#<name>     <account>   accounts by name
ACCOUNTS     <account>   all of them
H#<account>  <hour>      usage of past hours (storage/dynamodb/history.py)

Only the hot item changes after it is written, so no transaction is needed: a key becomes valid with the last
write of its creation. An interrupted creation leaves a key that was never valid, or an account that is
missing from ACCOUNTS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import Ambiguous, StoreDown, Taken, Unknown
from kimi_gateway.accounts.values import Account, Key, Limits
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, kid, number, partition
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

INFO = "info"
EVERY = "ACCOUNTS"
DRAWN = 100  # ids tried for a key; most of an account's 1,296 short ids are free


async def add_account(table: Table, account: str, name: str, hot: Raw, now: int) -> None:
    info: Raw = {"name": {"S": name}, "created": number(now)}
    await table.put(partition(account), HOT, hot)
    await table.put(partition(account), INFO, info)
    await table.put(f"N#{name}", account, {})
    await table.put(EVERY, account, {})


async def image_of(table: Table, account: str) -> Image | None:
    raw = await table.get(partition(account))
    return Image(raw) if raw is not None else None


async def add_key(table: Table, key: Key, draw: Callable[[], str]) -> tuple[Key, Image]:
    """Create a key; returns it with its id, and its account's image. Raises Unknown, Taken."""
    image = await image_of(table, key.account)
    if image is None:
        raise Unknown(key.account)
    id = await _place(table, key, draw, image)
    short, record = kid(id), _record(key, id)
    try:
        await table.put_new(f"K#{key.digest}", HOT, record, "id")
    except Conflict:
        await table.delete(partition(key.account), f"K#{short}")
        raise Taken from None
    await table.put(f"I#{id}", HOT, {"digest": {"S": key.digest}})
    alive = Change(adds=["ks :kid"], conditions=["attribute_exists(pk)"], values={":kid": {"SS": [short]}})
    image = Image(await table.update(partition(key.account), HOT, alive))
    return _key(record, image), image


async def _place(table: Table, key: Key, draw: Callable[[], str], image: Image) -> str:
    """A new id whose two characters no key of the account has used."""
    for _ in range(DRAWN):
        id = draw()
        if not image.has_key(id):
            try:
                await table.put_new(partition(key.account), f"K#{kid(id)}", _record(key, id), "id")
                return id
            except Conflict:
                continue
    raise StoreDown("the account has no room for another key")


async def find_key(table: Table, digest: str) -> tuple[Key, Image] | None:
    """The key by digest, None if there is none. The record is read before the image, so the image shows a
    revocation in between."""
    record = await table.get(f"K#{digest}")
    image = await image_of(table, record["account"]["S"]) if record is not None else None
    return (_key(record, image), image) if record is not None and image is not None else None


async def end_key(table: Table, key: str) -> tuple[Key, Image]:
    """Revoke a key, by id or digest. Raises Unknown."""
    record, pointer = await asyncio.gather(table.get(f"K#{key}"), table.get(f"I#{key}"))
    if pointer is not None:
        record = await table.get(f"K#{pointer['digest']['S']}")
    if record is None:
        raise Unknown(key)
    short = kid(record["id"]["S"])
    ended = Change(
        adds=["kg :one"],
        deletes=["ks :kid"],
        conditions=["attribute_exists(pk)"],
        values={":one": number(1), ":kid": {"SS": [short]}},
    )
    image = Image(await table.update(partition(record["account"]["S"]), HOT, ended))
    return _key(record, image), image


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


def _record(key: Key, id: str) -> Raw:
    own = {"m": key.limits.minute, "h": key.limits.hour, "d": key.limits.day}
    record: Raw = {
        "id": {"S": id},
        "digest": {"S": key.digest},
        "account": {"S": key.account},
        "name": {"S": key.name},
        "sees": {"BOOL": key.see_balance},
        "created": number(key.created),
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
    )
