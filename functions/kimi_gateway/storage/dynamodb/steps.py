"""The steps of the store on the hot item, as changes with conditions. Pure.

Every reason to refuse is in the condition, so one write decides, whatever was known before; the returned
image shows the reason. If a step's lease is gone, the step was applied earlier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import Any

from kimi_gateway.accounts import rules
from kimi_gateway.accounts import usage as usages
from kimi_gateway.accounts.store import NOTHING, UNUSED
from kimi_gateway.accounts.values import Admission, Amount, Balance, Bound, Grant, Key, Limits, Usage
from kimi_gateway.storage.dynamodb import budgets as meters
from kimi_gateway.storage.dynamodb import tally
from kimi_gateway.storage.dynamodb.item import (
    SPANS,
    Image,
    Lease,
    Raw,
    base36,
    counted_by,
    kid,
    lease_name,
    number,
    window_names,
)
from kimi_gateway.storage.dynamodb.table import Change

SWEPT = 20  # old counters removed at a time
TOGETHER = 50  # leases at a time; an expression may have 300 operators
MOST = 10**15  # credits
_RANKED = tuple(
    zip(*(astuple(limits) for _, limits in reversed(rules.TIERS)), strict=True)
)  # limits of a window by rank
GRANTS_KNOWN = 120  # seconds that a grant's id is kept: longer than any call is repeated


@lru_cache(maxsize=1024)
def _room(own: Limits, tiers: bool, rank: int) -> tuple[str, Mapping[str, Any]]:
    """The condition that every window has room, by the key's own limit or by the tier that the window began
    with. If a window begins now, the balance must be of the tier `rank`."""
    parts, begun = [], []
    values: dict[str, Any] = {}
    for letter, mine, span, ranks in zip("mhd", astuple(own), SPANS.values(), _RANKED, strict=True):
        if mine is not None:
            parts.append(f"(attribute_not_exists(#{letter}) OR #{letter} < :{letter})")
            values[f":{letter}"] = number(mine)
        elif tiers:
            begun.append(f"attribute_exists(#{letter})")
            rooms = [f"attribute_not_exists(#{letter})"]
            for place, limit in enumerate(ranks):
                low, high = f":{letter}{place}", f":{letter}{place}t"
                rooms.append(f"#{letter} BETWEEN {low} AND {high}")
                values |= {low: number(place * span), high: number(place * span + limit - 1)}
            parts.append(f"({' OR '.join(rooms)})")
    if begun:
        parts.append(f"(b BETWEEN :low AND :high OR ({' AND '.join(begun)}))")
        lowest, highest = rules.balances(rank, MOST)
        values |= {":low": number(lowest), ":high": number(highest)}
    return " AND ".join(parts), values


def admit(
    request: str,
    key: Key,
    cost: int,
    lease_until: int,
    now: int,
    image: Image | None,
    bound: Bound | None = None,
    output: int = 0,
) -> Change:
    """The change that admits a request. The last `image` says whether the account is unlimited, which
    counters are old, and which tier a new window gets; if it is outdated, the condition fails."""
    unlimited = image is not None and image.unlimited
    rank = 0 if image is None or unlimited else rules.rank(image.number("b"))
    root = key.root
    minute, hour, day = window_names(root, now, not unlimited)
    change = Change(
        sets=["#r = :lease"],
        conditions=["attribute_not_exists(#r)", "kg = :g", "contains(ks, :kid)"],
        names={"#r": lease_name(request, key), "#m": minute, "#h": hour, "#d": day},
        values={
            ":lease": number(Lease(0 if unlimited else cost, lease_until, output).number),
            ":one": number(1),
            ":g": number(key.generation),
            ":kid": {"S": kid(key.id)},
        },
    )
    if unlimited:
        change.conditions.append("attribute_not_exists(b)")
    else:
        change.sets.append("b = b - :c")
        change.conditions += ["gx > :now", "b >= :c"]
        change.values |= {":c": number(cost), ":now": number(now)}
    for letter, name in (("m", minute), ("h", hour), ("d", day)):
        if rank and name[0] in SPANS:
            change.sets.append(f"#{letter} = if_not_exists(#{letter}, :{letter}b) + :one")
            change.values[f":{letter}b"] = number(rank * SPANS[name[0]])
        else:
            change.adds.append(f"#{letter} :one")
    room, limits = _room(root.limits, not unlimited, rank)
    if room:
        change.conditions.append(room)
        change.values |= limits
    if root is not key:
        _count_too(change, key, now)
    for place, each in enumerate(rules.in_flight(key)):
        change.adds.append(f"#n{place} :one")
        change.conditions.append(f"(attribute_not_exists(#n{place}) OR #n{place} < :n{place})")
        change.names[f"#n{place}"] = f"n{kid(each.id)}"
        change.values[f":n{place}"] = number(each.in_flight or 0)
    meters.reserve(change, key, bound, output)
    if image is not None:
        old = (*image.old_windows(now)[:SWEPT], *meters.old(image, now)[:SWEPT])
        used = change.names.values()  # a late repetition counts in a period that is old by now
        for place, name in enumerate([name for name in old if name not in used]):
            change.removes.append(f"#w{place}")
            change.names[f"#w{place}"] = name
    return change


def hold(request: str, key: Key, lease_until: int, bound: Bound, output: int) -> Change:
    """The change that reserves more for a request that is admitted already."""
    change = Change(
        sets=["#r = :lease"],
        conditions=["attribute_not_exists(#r)", "kg = :g", "contains(ks, :kid)"],
        names={"#r": lease_name(request, key)},
        values={
            ":lease": number(Lease(0, lease_until, output).number),
            ":g": number(key.generation),
            ":kid": {"S": kid(key.id)},
        },
    )
    meters.reserve(change, key, bound, output)
    return change


def _count_too(change: Change, key: Key, now: int) -> None:
    """Count the request in the windows of a key that another one made, by its own limits."""
    columns = zip("xyz", window_names(key, now, False), astuple(key.limits), strict=True)
    for letter, name, limit in columns:
        change.adds.append(f"#{letter} :one")
        change.names[f"#{letter}"] = name
        if limit is not None:
            change.conditions.append(f"(attribute_not_exists(#{letter}) OR #{letter} < :{letter})")
            change.values[f":{letter}"] = number(limit)


def settle(admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None) -> Change:
    change = _end(admission)
    meters.correct(change, admission, billed, now)
    cost = admission.cost
    if cost:
        change.adds.append("c :c")
        change.values[":c"] = number(cost)
    tally.count(change, usages.settled(admission, model, usage, cost, now))
    return change


def release(
    admission: Admission,
    model: str,
    error: bool,
    now: int,
    billed: Amount | None = NOTHING,
    usage: Usage = UNUSED,
    cause: str = "",
) -> Change:
    change = _end(admission)
    meters.correct(change, admission, billed, now)
    if admission.cost:
        change.sets.append("b = b + :c")
        change.conditions.append("gx > :now")  # otherwise the credit would expire with an expired grant
        change.values |= {":c": number(admission.cost), ":now": number(now)}
    tally.count(change, usages.released(admission, model, error, usage, cause, now))
    return change


def _end(admission: Admission) -> Change:
    name = lease_name(admission.id, admission.key)
    change = Change(removes=["#r"], conditions=["attribute_exists(#r)"], names={"#r": name})
    _give_back(change, counted_by(name))
    return change


def _give_back(change: Change, counted: Iterable[str]) -> None:
    """Requests in flight end that these keys, by short ids, count."""
    for place, (short, ended) in enumerate(Counter(counted).items()):
        change.adds.append(f"#n{place} :n{place}")
        change.names[f"#n{place}"] = f"n{short}"
        change.values[f":n{place}"] = number(-ended)


def renew(admissions: Sequence[Admission], lease_until: int) -> Change:
    """Extend leases, all or nothing; after a conflict filter with `renewable`."""
    change = Change()
    for place, admission in enumerate(admissions):
        change.sets.append(f"#r{place} = :r{place}")
        change.conditions.append(f"#r{place} < :r{place}")
        change.names[f"#r{place}"] = lease_name(admission.id, admission.key)
        change.values[f":r{place}"] = number(Lease(admission.cost, lease_until, admission.output).number)
    return change


def renewable(admissions: Sequence[Admission], lease_until: int, image: Image) -> list[Admission]:
    """The admissions whose leases exist and would be extended."""
    leases = image.leases()
    gone = Lease(0, lease_until)
    name = lease_name
    return [each for each in admissions if leases.get(name(each.id, each.key), gone).expires < lease_until]


def opened(credits: Grant | None, now: int) -> Raw:
    """A new account's item; None makes it unlimited."""
    raw: Raw = {"kg": number(0), "f": number(0)}
    return raw if credits is None else raw | funds(rules.granted(Balance(), credits, now))


def funds(balance: Balance) -> Raw:
    return {
        "b": number(balance.spendable),
        "x": number(balance.expired),
        "gr": {"S": rules.packed(balance.grants)},
        "gx": number(rules.next_expiry(balance)),
    }


def rewritten(image: Image, balance: Balance, ended: Mapping[str, Lease]) -> Change:
    """Replace the image's balance by `balance` and remove the leases whose credits it includes, if nothing
    has changed since the image."""
    change = Change()
    if not image.unlimited:
        for name, value in funds(balance).items():
            change.sets.append(f"{name} = :{name}")
            change.values[f":{name}"] = value
        for name in ("b", "x", "gr"):
            change.conditions.append(f"{name} = :old{name}")
            change.values[f":old{name}"] = image.raw[name]
    _take_out(change, ended)
    return change


def swept(image: Image, ended: Mapping[str, Lease], now: int) -> Change:
    """Return the credits of ended leases. Concurrent requests do not disturb it; an expired grant does, until
    the next admission has removed that."""
    change = Change()
    if not image.unlimited:
        change.sets.append("b = b + :c")
        change.conditions.append("gx > :now")
        change.values |= {":c": number(sum(lease.cost for lease in ended.values())), ":now": number(now)}
    _take_out(change, ended)
    return change


def _take_out(change: Change, ended: Mapping[str, Lease]) -> None:
    for place, (name, lease) in enumerate(ended.items()):
        change.removes.append(f"#e{place}")
        change.conditions.append(f"#e{place} = :e{place}")
        change.names[f"#e{place}"] = name
        change.values[f":e{place}"] = number(lease.number)
    _give_back(change, [short for name in ended for short in counted_by(name)])


def lift(change: Change, image: Image, rank: int, now: int) -> Change:
    """Raise windows of lower tiers to this one, as many as fit into one write."""
    for place, (name, began) in enumerate(list(image.below(rank, now).items())[:TOGETHER]):
        span = SPANS[name[0]]
        change.adds.append(f"#u{place} :u{place}")
        change.conditions.append(f"#u{place} < :v{place}")
        change.names[f"#u{place}"] = name
        change.values |= {
            f":u{place}": number((rank - began) * span),
            f":v{place}": number((began + 1) * span),
        }
    return change


def with_grant(change: Change, image: Image, grant: str, now: int) -> Change:
    """Add the grant's id (six characters) to the same write, so that a repeated call does not grant twice."""
    known = image.raw["gi"]["S"].split() if "gi" in image.raw else []
    recent = [each for each in known if int(each[6:], 36) > now - GRANTS_KNOWN]
    change.sets.append("gi = :gi")
    change.values[":gi"] = {"S": " ".join((*recent, grant + base36(now)))}
    return change


def has_grant(image: Image, grant: str) -> bool:
    return "gi" in image.raw and any(each[:6] == grant for each in image.raw["gi"]["S"].split())
