"""Accounts that are moved from and to a table.

An account comes into being with its hot item, which is written last but one. An interrupted import has left
an account without it, which nothing finds, and is repeated whole. The second import of an account finds the
mark of the first one in `info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from kimi_gateway.accounts import budgets, keys
from kimi_gateway.accounts.budgets import Meter
from kimi_gateway.accounts.moving import Moved, Snapshot
from kimi_gateway.accounts.store import Store, Taken
from kimi_gateway.accounts.values import Balance, Key, UsageRow
from kimi_gateway.storage.dynamodb import accounts as directory
from kimi_gateway.storage.dynamodb import budgets as meters
from kimi_gateway.storage.dynamodb import funds, history, steps, tally
from kimi_gateway.storage.dynamodb.item import HOT, Raw, kid, number, partition
from kimi_gateway.storage.dynamodb.keys import record_of
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

MARK = "imported"


class DynamoMover:
    """`storage.moving.Mover` for the table of `store`. Usage is kept for `kept` seconds."""

    def __init__(self, table: Table, store: Store, kept: int) -> None:
        self._table = table
        self._kept = kept
        self._store = store

    async def snapshot(self, now: int) -> Snapshot:
        """Accounts are read one after the other, each at one moment."""
        accounts = await self._store.accounts(now)
        found = {each.id: await funds.every(self._table, each.id) for each in accounts}
        return Snapshot(accounts, await self._store.usage(0), found)

    async def restore(self, moved: Moved, now: int) -> bool:
        table, moved = self._table, _with_short_ids(moved)
        account = moved.account
        if await table.get(partition(account.id)) is not None:
            return await self._known(moved)
        for key in account.keys:
            await self._point(key)
        for key in account.keys:
            await table.put(partition(account.id), f"K#{kid(key.id)}", record_of(key))
        for hour in sorted({row.hour for row in moved.usage}):
            rows = [row for row in moved.usage if row.hour == hour]
            await table.put(f"H#{account.id}", history.sort_key(hour), _hour(rows, hour + self._kept))
        info = directory.info_of(account.name, account.created, account.invited_by)
        await table.put(partition(account.id), directory.INFO, info | {MARK: {"S": moved.mark}})
        await table.put(f"N#{account.name}", account.id, {})
        for place, credits in moved.funded:
            await table.put(f"G#{account.id}", place, {"n": number(credits)})
        try:
            await table.update(partition(account.id), HOT, _created(_hot(moved, now)))
        except Conflict:  # our own write, whose answer was lost, or another import of the same file
            return await self._known(moved)
        await table.put(directory.EVERY, account.id, {})
        return True

    async def _known(self, moved: Moved) -> bool:
        """False if the account is the one of an earlier import. Raises Taken."""
        info = await self._table.get(partition(moved.account.id), directory.INFO)
        if info is None or info.get(MARK) != {"S": moved.mark}:
            raise Taken(moved.account.id)
        await self._table.put(directory.EVERY, moved.account.id, {})
        return False

    async def _point(self, key: Key) -> None:
        """Raises Taken."""
        pointer: Raw = {"id": {"S": key.id}, "account": {"S": key.account}}
        for digest in (key.digest, key.old_digest):
            if digest:
                try:
                    await self._table.put_new(f"K#{digest}", HOT, pointer, "id")
                except Conflict:
                    raise Taken(key.id) from None
        await self._table.put(f"I#{key.id}", HOT, {"digest": {"S": key.digest}})


def _with_short_ids(moved: Moved) -> Moved:
    """Keys of one account get ids with different short forms, always the same ones; few keys need it."""
    ids: dict[str, str] = {}
    taken = set[str]()
    for key in sorted(moved.account.keys, key=lambda key: (key.created, key.id)):
        ids[key.id], count = key.id, 0
        while kid(ids[key.id]) in taken:
            ids[key.id] = _long_id(key.id, count)
            count += 1
        taken.add(kid(ids[key.id]))
    if all(old == new for old, new in ids.items()):
        return moved
    return _renamed(moved, ids)


def _long_id(id: str, count: int) -> str:
    drawn = iter(sha256(f"{id} {count}".encode()).digest() * 2)
    return keys.key_id(lambda below: next(drawn) % below, long=True)


def _renamed(moved: Moved, ids: Mapping[str, str]) -> Moved:
    held = tuple(
        replace(key, id=ids[key.id], made_by=ids.get(key.made_by, key.made_by)) for key in moved.account.keys
    )
    return replace(
        moved,
        account=replace(moved.account, keys=held),
        usage=tuple(replace(row, key=ids.get(row.key, row.key)) for row in moved.usage),
        counters=tuple(
            (Meter(ids.get(meter.scope, meter.scope), meter.budget, meter.bucket), amount)
            for meter, amount in moved.counters
        ),
    )


def _hot(moved: Moved, now: int) -> Raw:
    account = moved.account
    # No process may take a key that it knew before for one of these, so their generation is a new one.
    raw: Raw = {"kg": number(now), "f": number(0)}
    if not account.unlimited:
        balance = Balance(account.grants, account.credits, account.consumed, account.expired)
        raw |= steps.funds(balance) | {"c": number(account.consumed)}
    if valid := [kid(key.id) for key in account.keys if not key.revoked]:
        raw["ks"] = {"SS": valid}
    if account.budgets:
        raw["bg"] = {"S": budgets.packed(account.budgets)}
    return raw | {meters.name(meter): number(amount) for meter, amount in moved.counters if amount}


def _created(raw: Raw) -> Change:
    change = Change(conditions=["attribute_not_exists(pk)"])
    for place, (name, value) in enumerate(raw.items()):
        change.sets.append(f"#n{place} = :n{place}")
        change.names[f"#n{place}"] = name
        change.values[f":n{place}"] = value
    return change


def _hour(rows: Sequence[UsageRow], until: int) -> Raw:
    """An hour of the history, which no move of the table has added to. DynamoDB deletes it after `until`."""
    item: Raw = {"f": number(0), TTL: number(until)}
    for row in rows:
        change = Change()
        tally.count(change, row)
        item |= {name: change.values[f":{place[1:]}"] for place, name in change.names.items()}
    return item
