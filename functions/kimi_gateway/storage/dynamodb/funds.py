"""Changes of a balance that are made once in the life of an account, without a transaction.

gn             in the hot item: the number of such changes
go             the changes that have no mark yet, as "place:credits:call …"
G#<account>    <place>  the mark of a change, with its credits; a place is 96 bits of the hash of its name
T#<name>       a count of events

The change and its entry in `go` are one write, which needs the `gn` that was read. The mark is written after
it, and the entry goes last. Who reads the item before the mark finds one of the two.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.store import Unknown, Unlimited
from kimi_gateway.accounts.values import Balance
from kimi_gateway.storage.dynamodb import steps
from kimi_gateway.storage.dynamodb.item import HOT, Image, number
from kimi_gateway.storage.dynamodb.keys import image_of
from kimi_gateway.storage.dynamodb.outages import TTL
from kimi_gateway.storage.dynamodb.table import Change, Conflict, Table


class Funded(NamedTuple):
    """A change; `call` tells the call that made it from a repeated one."""

    place: str
    credits: int
    call: str


def _place(name: str) -> str:
    return urlsafe_b64encode(sha256(name.encode()).digest()[:12]).decode()


def _unmarked(image: Image) -> list[Funded]:
    words = image.raw["go"]["S"].split() if "go" in image.raw else []
    return [Funded(at, int(credits), call) for at, credits, call in (word.split(":") for word in words)]


def _with_change(change: Change, image: Image, funded: Funded) -> Change:
    """Add the entry to the same write; all others have their marks."""
    change.sets += ["#go = :go", "gn = :gn"]
    change.names["#go"] = "go"
    change.values |= {":go": {"S": ":".join(map(str, funded))}, ":gn": number(image.number("gn") + 1)}
    if "gn" in image.raw:
        change.conditions.append("gn = :oldgn")
        change.values[":oldgn"] = image.raw["gn"]
    else:
        change.conditions.append("attribute_not_exists(gn)")
    return change


def _finished(image: Image) -> Change:
    """Take the entries out, if there are no others since."""
    return Change(
        removes=["#go"], conditions=["#go = :go"], names={"#go": "go"}, values={":go": image.raw["go"]}
    )


async def _mark(table: Table, account: str, image: Image) -> None:
    for at, credits, _ in _unmarked(image):
        await table.put(f"G#{account}", at, {"n": number(credits)})


async def _marked(table: Table, account: str, at: str) -> int | None:
    item = await table.get(f"G#{account}", at)
    return None if item is None else int(item["n"]["N"])


async def fund(
    table: Table,
    account: str,
    name: str,
    change: Callable[[Balance], Balance],
    now: int,
    call: str,
    write: Callable[[str, Change], Awaitable[Image]],
) -> bool | None:
    """Whether the `call` made the change; None if others changed the account meanwhile. Raises Unknown,
    Unlimited, and what `change` raises."""
    place, image = _place(name), await image_of(table, account)
    if image is None:
        raise Unknown(account)
    if image.unlimited:
        raise Unlimited(account)
    await _mark(table, account, image)
    known = next((each for each in _unmarked(image) if each.place == place), None)
    if known is None:
        if await _marked(table, account, place) is not None:
            return False
        before = rules.folded(image.balance, now)
        after = change(before)
        known = Funded(place, after.spendable - before.spendable, call)
        step = _with_change(steps.rewritten(image, after, {}), image, known)
        rank = rules.rank(after.spendable) if known.credits > 0 else 0
        try:
            image = await write(account, steps.lift(step, image, rank, now))
        except Conflict:
            return None
        await _mark(table, account, image)
    with suppress(Conflict):
        await write(account, _finished(image))
    return known.call == call


async def every(table: Table, account: str) -> list[tuple[str, int]]:
    """All changes by their places."""
    image = await image_of(table, account)
    found = {} if image is None else {each.place: each.credits for each in _unmarked(image)}
    marks = await table.query(f"G#{account}")
    return sorted({**found, **{item["sk"]["S"]: int(item["n"]["N"]) for item in marks}}.items())


async def funded(table: Table, account: str, name: str) -> int | None:
    """Raises Unknown."""
    place, image = _place(name), await image_of(table, account)
    if image is None:
        raise Unknown(account)
    known = [each.credits for each in _unmarked(image) if each.place == place]
    return known[0] if known else await _marked(table, account, place)


async def tally(table: Table, name: str, most: int, until: int) -> bool:
    one = Change(
        sets=["#until = :until"],
        adds=["n :one"],
        conditions=["(attribute_not_exists(n) OR n < :most)"],
        names={"#until": TTL},
        values={":one": number(1), ":most": number(most), ":until": number(until)},
    )
    try:
        await table.update(f"T#{name}", HOT, one)
    except Conflict:
        return False
    return most > 0
