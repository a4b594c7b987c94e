"""Usage: counted in the hot item and moved to one item an hour and account when the hour is over.

The move is exact however often it is repeated and wherever it is interrupted. One write freezes the rows of
past hours in the hot item under a number (f). One write for each hour adds them to the history, unless it has
this number already. One write removes them from the hot item. That is three write units for each hour in
which an account was used.
"""

from __future__ import annotations

from collections.abc import Iterable

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import StoreDown, Unknown
from kimi_gateway.accounts.values import UsageRow
from kimi_gateway.dataclass import dataclass
from kimi_gateway.storage.dynamodb import accounts
from kimi_gateway.storage.dynamodb.item import HOT, Image, Raw, Tally, Used, number, partition, usage_of
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table

ROWS = 20  # rows moved at a time
READINGS = 5  # of one history, if rows are moved during each; a move takes place about once an hour


def _partition(account: str) -> str:
    return f"H#{account}"


def over(image: Image, now: int) -> bool:
    """Whether there are rows to move."""
    this = now - now % rules.HOUR
    return "o" in image.raw or any(used.hour < this for used in image.used())


async def move(table: Table, account: str, image: Image, now: int) -> None:
    """Move the rows of past hours. Raises StoreDown; a later call then continues."""
    if "o" not in image.raw:
        try:
            image = Image(await table.update(partition(account), HOT, frozen(image, now)))
        except Conflict:
            return  # another process did it, or a past hour was counted just now
    for hour, rows in _by_hour(image.outbox).items():
        try:
            await table.update(_partition(account), _sort_key(hour), added(rows, image.folds))
        except Conflict:
            continue
    taken = Change(removes=["o"], conditions=["f = :f"], values={":f": number(image.folds)})
    try:
        await table.update(partition(account), HOT, taken)
    except Conflict:
        return


def _sort_key(hour: int) -> str:
    return f"{hour:010d}"


def frozen(image: Image, now: int) -> Change:
    """The change that freezes rows of past hours. Each write to a row changes its counter, so an equal
    counter means an unchanged row."""
    this = now - now % rules.HOUR
    names = [name for name in image.raw if name[0] == "q" and int(name[1:5], 36) * rules.HOUR < this][:ROWS]
    moved: Raw = {}
    change = Change(
        sets=["o = :o", "f = :f"],
        conditions=["attribute_not_exists(o)", "f = :oldf"],
        values={":f": number(image.folds + 1), ":oldf": number(image.folds)},
    )
    for place, name in enumerate(names):
        change.conditions.append(f"#q{place} = :q{place}")
        change.values[f":q{place}"] = image.raw[name]
        for letter in "qtl":
            if (part := letter + name[1:]) in image.raw:
                moved[part] = image.raw[part]
                change.names[f"#{letter}{place}"] = part
                change.removes.append(f"#{letter}{place}")
    change.values[":o"] = {"M": moved}
    return change


def _by_hour(outbox: Raw) -> dict[int, Raw]:
    hours: dict[int, Raw] = {}
    for name, value in outbox.items():
        hours.setdefault(int(name[1:5], 36) * rules.HOUR, {})[name] = value
    return hours


def added(rows: Raw, fold: int) -> Change:
    change = Change(
        sets=["f = :f"],
        conditions=["(attribute_not_exists(f) OR f < :f)"],
        values={":f": number(fold)},
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

    def all(self) -> Iterable[Used]:
        yield from self.image.used()
        applied = {}
        for item in self.history:
            applied[int(item["sk"]["S"])] = int(item["f"]["N"])
            yield from usage_of({name: value for name, value in item.items() if len(name) > 2})
        for used in usage_of(self.image.outbox):
            if applied.get(used.hour, -1) < self.image.folds:
                yield used


async def read(table: Table, account: str, image: Image, since: int) -> Seen:
    """A consistent view of usage. `image` was read just before; both are read again while rows are being
    moved. Raises StoreDown, also if rows are moved during each of READINGS readings."""
    for _ in range(READINGS):
        history = await table.query(_partition(account), _sort_key(since))
        raw = await table.get(partition(account))
        now = Image(raw or {})
        if now.folds == image.folds:
            return Seen(image, history)
        image = now
    raise StoreDown(f"usage was being moved during {READINGS} readings")


def rows(account: str, keys: dict[str, str], seen: Seen, since: int) -> list[UsageRow]:
    """Rows since `since`, summed. `keys` are key ids by short id."""
    sums: dict[tuple[int, str, str], tuple[Tally, int]] = {}
    for used in seen.all():
        if used.hour >= since:
            at = used.hour, keys.get(used.kid, used.kid), used.model
            tally, last = sums.get(at, (Tally(), 0))
            both = Tally(*(mine + more for mine, more in zip(tally, used.tally, strict=True)))
            sums[at] = both, max(last, used.last)
    return [
        UsageRow(hour, account, key, model, *tally[:2], tally.input, tally.output, tally.credits, last)
        for (hour, key, model), (tally, last) in sums.items()
    ]


async def of_account(table: Table, account: str, since: int) -> list[UsageRow]:
    """Empty if there is no such account."""
    try:
        held = await accounts.held(table, account)
    except Unknown:
        return []
    return rows(account, held.ids(), await read(table, account, held.image, since), since)
