"""Keys in DynamoDB: how they are created, found and changed (items: storage/dynamodb/accounts.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kimi_gateway.accounts import budgets, keys, rules
from kimi_gateway.accounts.store import StoreDown, Taken, TooManyKeys, Unknown
from kimi_gateway.accounts.values import NEVER, Budget, Key, Limits, NewKey
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, kid, number, partition
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

DRAWN = 20  # ids tried for a key
READINGS = 5  # of one key, if it is changed during each
MOST_ENDED = 32  # attributes of revoked keys that stay in the hot item
FORGOTTEN = 100  # of them that one write takes out
SHORT = 8  # of them with a short form of two characters


async def image_of(table: Table, account: str) -> Image | None:
    raw = await table.get(partition(account))
    return Image(raw) if raw is not None else None


async def add_key(
    table: Table, new: NewKey, now: int, below: keys.Below, most: int | None
) -> tuple[Key, Image]:
    """The key with its id, and its account's image. Raises Unknown, Taken, TooManyKeys."""
    image = await image_of(table, new.account)
    if image is None:
        raise Unknown(new.account)
    key = await _place(table, new, now, below, image)
    short = kid(key.id)
    try:
        pointer: Raw = {"id": {"S": key.id}, "account": {"S": key.account}}
        await table.put_new(f"K#{key.digest}", HOT, pointer, "id")
    except Conflict:
        await table.delete(partition(key.account), f"K#{short}")
        raise Taken from None
    await table.put(f"I#{key.id}", HOT, {"digest": {"S": key.digest}})
    alive = Change(adds=["ks :kid"], conditions=["attribute_exists(pk)"], values={":kid": {"SS": [short]}})
    if most is not None:
        alive.conditions.append("(attribute_not_exists(ks) OR contains(ks, :short) OR size(ks) < :most)")
        alive.values |= {":short": {"S": short}, ":most": number(most)}
    try:
        image = Image(await table.update(partition(key.account), HOT, alive))
    except Conflict as conflict:
        for pk, sk in (
            (f"I#{key.id}", HOT),
            (f"K#{key.digest}", HOT),
            (partition(key.account), f"K#{short}"),
        ):
            await table.delete(pk, sk)
        raise (Unknown if conflict.item is None else TooManyKeys)(key.account) from None
    record = record_of(key)
    return key_of(record, image, await _maker(table, record)), image


async def _place(table: Table, new: NewKey, now: int, below: keys.Below, image: Image) -> Key:
    """The key with an id whose short form no key of the account ever had. Where most of the forms of two
    characters are taken, it gets one of four."""
    for drawn in range(DRAWN):
        key = rules.made(new, keys.key_id(below, long=drawn >= SHORT), now)
        if not image.has_key(key.id):
            try:
                await table.put_new(partition(key.account), f"K#{kid(key.id)}", record_of(key), "id")
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
    for _ in range(READINGS):
        record, image = await asyncio.gather(
            table.get(partition(account), f"K#{short}"), image_of(table, account)
        )
        if record is None or image is None:
            return None
        maker = await _maker(table, record)
        if all(
            _version(each) >= image.number(f"v{kid(each['id']['S'])}") for each in (record, maker or record)
        ):
            return key_of(record, image, maker), image
    raise StoreDown(f"the key was older than its account in {READINGS} readings")


async def _maker(table: Table, record: Raw) -> Raw | None:
    by = made_by(record)
    return await table.get(partition(record["account"]["S"]), f"K#{kid(by)}") if by else None


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
    if len(names := image.of_ended_keys(but=short)) > MOST_ENDED:
        image = await _forget(table, account, names) or image
    return key_of(record, image, await _maker(table, record)), image


async def _forget(table: Table, account: str, names: list[str]) -> Image | None:
    """Take attributes of revoked keys out of the hot item, FORGOTTEN at most. No other key of the account
    ever has their short ids."""
    gone = Change(conditions=["attribute_exists(pk)"])
    for place, name in enumerate(names[:FORGOTTEN]):
        gone.removes.append(f"#n{place}")
        gone.names[f"#n{place}"] = name
    try:
        return Image(await table.update(partition(account), HOT, gone))
    except Conflict:  # the account is deleted
        return None


async def change_key(table: Table, key: str, change: Callable[[Key], Key]) -> tuple[Key, Image] | None:
    """Change a key, by id or digest; None if another change came between. Raises Unknown."""
    pointer = await pointer_to(table, key)
    account, short = pointer["account"]["S"], kid(pointer["id"]["S"])
    record, image = await asyncio.gather(
        table.get(partition(account), f"K#{short}"), image_of(table, account)
    )
    if record is None or image is None:
        raise Unknown(key)
    maker = await _maker(table, record)
    old, version = key_of(record, image, maker), _version(record)
    wanted = record_of(change(old)) | {"v": number(version + 1)}
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
    return key_of(wanted, image, maker), image


async def add_digest(table: Table, key: str, digest: str) -> None:
    """Add a digest to a key (by id or digest). Raises Unknown, Taken."""
    pointer = await pointer_to(table, key)
    try:
        await table.put_new(f"K#{digest}", HOT, {name: pointer[name] for name in ("id", "account")}, "id")
    except Conflict:
        raise Taken from None


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


def shared_of(image: Image) -> tuple[Budget, ...]:
    return budgets.unpacked(image.raw["bg"]["S"]) if "bg" in image.raw else ()


def record_of(key: Key) -> Raw:
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
        "budgets": {"S": budgets.packed(key.budgets)},
        "search": {"BOOL": key.search},
        "files": {"BOOL": key.files},
        "manages": {"BOOL": key.manages},
        **({"operator": {"BOOL": True}} if key.operator else {}),
        "by": {"S": key.made_by},
    }
    own |= {"flight": key.in_flight, "tokens": key.tokens}
    return record | {letter: number(limit) for letter, limit in own.items() if limit is not None}


def key_of(record: Raw, image: Image, maker: Raw | None = None) -> Key:
    """`maker`: the record of the key that made it."""
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
        budgets=budgets.unpacked(record["budgets"]["S"]) if "budgets" in record else (),
        shared=shared_of(image),
        in_flight=int(record["flight"]["N"]) if "flight" in record else None,
        tokens=int(record["tokens"]["N"]) if "tokens" in record else None,
        search="search" not in record or record["search"]["BOOL"],
        files="files" not in record or record["files"]["BOOL"],
        manages="manages" in record and record["manages"]["BOOL"],
        operator="operator" in record,
        made_by=made_by(record),
        maker=None if maker is None else key_of(maker, image),
    )


def made_by(record: Raw) -> str:
    return str(record["by"]["S"]) if "by" in record else ""
