"""Accounts and keys in DynamoDB, and their lookup by id, name and digest.

A#<account>  -           the hot item (storage/dynamodb/item.py)
             info        name, time of creation
             K#<short>   a key; whether it is valid is in the hot item's `ks`
K#<digest>   -           the id and account of the key with this digest
I#<key id>   -           the digest
N#<name>     <account>   accounts by name
ACCOUNTS     <account>   all of them
G#<account>  <place>     changes of its balance that are made once (storage/dynamodb/funds.py)
T#<name>     -           counts of events
H#<account>  <hour>      usage of past hours (storage/dynamodb/history.py)

No step needs a transaction. A key becomes valid with the last write of its creation. An interrupted creation
leaves a key that was never valid, or an account that is missing from ACCOUNTS. A change writes the key with a
higher version first, then this version and the next generation into the hot item. So a
reader of the new generation also reads the new key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from kimi_gateway.accounts import budgets, rules
from kimi_gateway.accounts.store import Ambiguous, Taken, Unknown
from kimi_gateway.accounts.values import Account, Budget, Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.dynamodb import budgets as meters
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, kid, number, partition
from kimi_gateway.storage.dynamodb.keys import key_of, made_by, record_of, shared_of
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

INFO = "info"
EVERY = "ACCOUNTS"
AT_ONCE = 16  # accounts, if all are read
T = TypeVar("T")


async def add_account(table: Table, account: str, name: str, hot: Raw, now: int, invited_by: str) -> None:
    info = info_of(name, now, invited_by)
    await table.put(partition(account), HOT, hot)
    await table.put(partition(account), INFO, info)
    await table.put(f"N#{name}", account, {})
    await table.put(EVERY, account, {})


async def open_account(table: Table, key: Key, hot: Raw, now: int, invited_by: str) -> None:
    """An account with its first key. It comes into being with its hot item, which is written last; what an
    interrupted call has left is found by nobody. Raises Taken."""
    try:
        pointer: Raw = {"id": {"S": key.id}, "account": {"S": key.account}}
        await table.put_new(f"K#{key.digest}", HOT, pointer, "id")
    except Conflict:
        raise Taken from None
    await table.put(f"I#{key.id}", HOT, {"digest": {"S": key.digest}})
    await table.put(partition(key.account), f"K#{kid(key.id)}", record_of(key))
    await table.put(partition(key.account), INFO, info_of("", now, invited_by))
    await table.put("N#", key.account, {})
    await table.put(EVERY, key.account, {})
    await table.put(partition(key.account), HOT, hot | {"ks": {"SS": [kid(key.id)]}})


def info_of(name: str, created: int, invited_by: str) -> Raw:
    return {"name": {"S": name}, "created": number(created), "by": {"S": invited_by}}


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


async def set_budgets(table: Table, account: str, wanted: Sequence[Budget]) -> None:
    """Raises Unknown."""
    change = Change(
        sets=["bg = :bg"],
        adds=["kg :one"],
        conditions=["attribute_exists(pk)"],
        values={":bg": {"S": budgets.packed(wanted)}, ":one": number(1)},
    )
    try:
        await table.update(partition(account), HOT, change)
    except Conflict:
        raise Unknown(account) from None


async def remove(table: Table, account: str) -> None:
    """Delete an account: the hot item first, which ends every key at once, and `info` last, so that an
    interrupted call can be repeated. Raises Unknown."""
    items = {item["sk"]["S"]: item for item in await table.query(partition(account))}
    if INFO not in items:
        raise Unknown(account)
    from kimi_gateway.storage.dynamodb import leaving  # few processes need it

    await table.delete(partition(account), HOT)
    await table.delete(EVERY, account)
    await table.delete(f"N#{items[INFO]['name']['S']}", account)
    for partition_key in (f"H#{account}", f"G#{account}"):
        for item in await table.query(partition_key):
            await table.delete(partition_key, item["sk"]["S"])
    for sk, record in items.items():
        if sk.startswith("K#"):
            for digest in {record["digest"]["S"], record.get("old", {"S": ""})["S"]} - {""}:
                await table.delete(f"K#{digest}", HOT)
            await table.delete(f"I#{record['id']['S']}", HOT)
            await table.delete(partition(account), sk)
    await leaving.end(table, account)
    await table.delete(partition(account), INFO)


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
    invited_by: str = ""

    @property
    def keys(self) -> tuple[Key, ...]:
        by_id = {record["id"]["S"]: record for record in self.records}
        held = [key_of(record, self.image, by_id.get(made_by(record))) for record in self.records]
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
    by = info["by"]["S"] if "by" in info else ""
    return Held(account, Image(items[HOT]), info["name"]["S"], int(info["created"]["N"]), records, by)


def shown(held: Held, now: int) -> Account:
    """The account at `now`, without expired grants and with the credits of ended leases, whether or not that
    is written."""
    known = seen(held.id, held.image, held.keys, now)
    return replace(known, name=held.name, created=held.created, invited_by=held.invited_by)


def seen(id: str, image: Image, keys: tuple[Key, ...], now: int) -> Account:
    """The same without its name and creation, from the hot item alone."""
    ended = image.ended(now)
    balance = rules.returned(image.balance, sum(lease.cost for lease in ended.values()), now)
    reserved = sum(lease.cost for name, lease in image.leases().items() if name not in ended)
    return Account(
        id=id,
        name="",
        unlimited=image.unlimited,
        credits=balance.spendable + reserved,
        reserved=reserved,
        consumed=balance.consumed,
        expired=balance.expired,
        created=0,
        grants=rules.unspent(balance),
        keys=keys,
        budgets=shared_of(image),
        spent=budgets.spent(keys, shared_of(image), now, lambda meter: meters.amount(image, meter)),
    )


async def each(ids: Sequence[str], step: Callable[[str], Awaitable[T]]) -> list[T]:
    """Results in the order of `ids`, computed AT_ONCE at a time."""
    found: list[T] = []
    for start in range(0, len(ids), AT_ONCE):
        found += await asyncio.gather(*map(step, ids[start : start + AT_ONCE]))
    return found
