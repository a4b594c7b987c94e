"""Usage: counted in the hot item and moved to one item an hour and account when the hour is over.

The move is exact however often it is repeated and wherever it is interrupted. One write freezes the rows of
past hours in the hot item under a number (f). One write for each hour adds them to the history, unless it has
this number already. One write removes them from the hot item. That is three write units for each hour in
which an account was used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kimi_gateway.accounts import rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.store import KeyStale, StoreDown, Unknown
from kimi_gateway.accounts.values import Key, Overview, UsageRow
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.dynamodb import accounts, tally
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, number, partition
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

ROWS = 20  # rows moved at a time
PARTS = 150  # attributes of them; an expression may have 300 operators
READINGS = 5  # of one history, if rows are moved during each; a move takes place about once an hour


def _partition(account: str) -> str:
    return f"H#{account}"


def over(image: Image, now: int) -> bool:
    """Whether there are rows to move."""
    this = usages.hour_of(now)
    return "o" in image.raw or any(hour < this for hour in tally.hours(image.raw))


async def move(table: Table, account: str, image: Image, now: int, kept: int) -> None:
    """Move the rows of past hours, which are kept for `kept` seconds. Raises StoreDown; a later call then
    continues."""
    if "o" not in image.raw:
        try:
            image = Image(await table.update(partition(account), HOT, frozen(image, now)))
        except Conflict:
            return  # another process did it, or a past hour was counted just now
    for hour, rows in _by_hour(image.outbox).items():
        try:
            await table.update(_partition(account), sort_key(hour), added(rows, image.folds, hour + kept))
        except Conflict:
            continue
    taken = Change(removes=["o"], conditions=["f = :f"], values={":f": number(image.folds)})
    try:
        await table.update(partition(account), HOT, taken)
    except Conflict:
        return


def sort_key(hour: int) -> str:
    return f"{hour:010d}"


def frozen(image: Image, now: int) -> Change:
    """The change that freezes rows of past hours. Each write to a row changes its counter, so an equal
    counter means an unchanged row."""
    this = usages.hour_of(now)
    moved: Raw = {}
    change = Change(
        sets=["o = :o", "f = :f"],
        conditions=["attribute_not_exists(o)", "f = :oldf"],
        values={":f": number(image.folds + 1), ":oldf": number(image.folds)},
    )
    for parts in _rows(image.raw, this):
        for name in parts:
            placeholder = f"#o{len(moved)}"
            change.names[placeholder] = name
            change.removes.append(placeholder)
            if name[0] == "q":
                change.conditions.append(f"{placeholder} = :o{len(moved)}")
                change.values[f":o{len(moved)}"] = image.raw[name]
            moved[name] = image.raw[name]
    change.values[":o"] = {"M": moved}
    return change


def _rows(raw: Raw, before: int) -> list[list[str]]:
    """The attributes of past rows, as many rows as one write can move."""
    rows: dict[str, list[str]] = {}
    for name in raw:
        if (rest := tally.part_of(name)) and tally.hour_in(name) < before:
            rows.setdefault(rest, []).append(name)
    some = list(rows.values())[:ROWS]
    while len(some) > 1 and sum(map(len, some)) > PARTS:
        some.pop()
    return some


def _by_hour(outbox: Raw) -> dict[int, Raw]:
    hours: dict[int, Raw] = {}
    for name, value in outbox.items():
        hours.setdefault(tally.hour_in(name), {})[name] = value
    return hours


def added(rows: Raw, fold: int, until: int) -> Change:
    """The change that adds rows to an hour, which DynamoDB deletes after `until`."""
    change = Change(
        sets=["f = :f", "#ttl = :ttl"],
        conditions=["(attribute_not_exists(f) OR f < :f)"],
        names={"#ttl": TTL},
        values={":f": number(fold), ":ttl": number(until)},
    )
    for place, (name, value) in enumerate(rows.items()):
        change.names[f"#n{place}"] = name
        change.values[f":n{place}"] = value
        if name[0] == "l":
            change.sets.append(f"#n{place} = :n{place}")
        else:
            change.adds.append(f"#n{place} :n{place}")
    return change


@dataclass(frozen=True, slots=True)
class Seen:
    """An account's usage at one moment: hot item and history."""

    image: Image
    history: list[Raw]

    def rows(self, account: str, keys: Mapping[str, str], since: int) -> list[UsageRow]:
        """Rows since `since`, summed. `keys` are key ids by short id."""
        sums: dict[tuple[int, str, str], UsageRow] = {}
        for row in self._all(account, keys):
            if row.hour >= since:
                at = row.hour, row.key, row.model
                sums[at] = usages.both(sums[at], row) if at in sums else row
        return list(sums.values())

    def _all(self, account: str, keys: Mapping[str, str]) -> Iterator[UsageRow]:
        yield from tally.rows(self.image.raw, account, keys)
        applied = {}
        for item in self.history:
            applied[int(item["sk"]["S"])] = int(item["f"]["N"])
            yield from tally.rows(item, account, keys)
        for row in tally.rows(self.image.outbox, account, keys):
            if applied.get(row.hour, -1) < self.image.folds:
                yield row


async def read(table: Table, account: str, image: Image, since: int) -> Seen:
    """A consistent view of usage. `image` was read just before; both are read again while rows are being
    moved. Raises StoreDown, also if rows are moved during each of READINGS readings."""
    for _ in range(READINGS):
        history = await table.query(_partition(account), sort_key(since))
        raw = await table.get(partition(account))
        now = Image(raw or {})
        if now.folds == image.folds:
            return Seen(image, history)
        image = now
    raise StoreDown(f"usage was being moved during {READINGS} readings")


async def overview(table: Table, key: Key, since: int, now: int) -> Overview:
    """The part for the holder of a key: two reads and one query. Raises KeyStale."""
    first = await table.get(partition(key.account))
    image = Image(first or {})
    if first is None or key.generation != image.generation or not image.has_key(key.id):
        raise KeyStale
    seen = await read(table, key.account, image, usages.hour_of(since))
    image = seen.image
    account = rules.seen_by(accounts.seen(key.account, image, key.line, now), key)
    standing = image.standing(key, now, rules.rank(account.credits - account.reserved))
    rows = usages.summed(seen.rows(key.account, {}, usages.hour_of(since)), ("hour",))
    return Overview(account, rules.windows(standing), tuple(rows))


async def of_account(table: Table, account: str, since: int) -> list[UsageRow]:
    """Empty if there is no such account."""
    try:
        held = await accounts.held(table, account)
    except Unknown:
        return []
    seen = await read(table, account, held.image, since)
    return seen.rows(account, held.ids(), since)
