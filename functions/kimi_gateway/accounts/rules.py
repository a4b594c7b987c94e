"""Pure arithmetic of limits and credits: tiers, UTC windows, expiring grants. Stores make it atomic."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from kimi_gateway.accounts.values import NEVER, Account, Balance, Grant, Key, Limits, NewKey, Window


class TooMuch(ValueError):
    """More credits were to be taken than can be spent (`spendable`)."""

    def __init__(self, spendable: int) -> None:
        super().__init__(f"only {spendable} credits can be taken")
        self.spendable = spendable


# Tiers by spendable credits before the request's own reservation. The lowest tier starts at 0: a request that
# costs nothing is admitted at 0 credits.
TIERS = (
    (10_001, Limits(500, 15_000, 100_000)),
    (1_001, Limits(200, 6_000, 50_000)),
    (101, Limits(60, 2_000, 20_000)),
    (0, Limits(20, 600, 5_000)),
)
_FLOORS = [floor for floor, _ in reversed(TIERS)]


def rank(spendable: int) -> int:
    """The tier of a balance as a number; 0 is the lowest. A window keeps the rank that it began with."""
    return bisect_right(_FLOORS, spendable) - 1


def tier(rank: int) -> Limits:
    return TIERS[len(TIERS) - 1 - rank][1]


def balances(rank: int, most: int) -> tuple[int, int]:
    """The lowest and the highest balance of a tier; the top tier ends at `most`."""
    place = len(TIERS) - 1 - rank
    return TIERS[place][0], TIERS[place - 1][0] - 1 if place else most


class Count(NamedTuple):
    """Requests of one key in one window. `bucket` is the number of the window since 1970, `rank` the tier
    that the window began with or that a grant raised it to."""

    bucket: int
    requests: int
    rank: int = 0


Counts = tuple[Count, Count, Count]  # minute, hour, day

MINUTE, HOUR, DAY = SIZES = (60, 3_600, 86_400)
UNCOUNTED: Counts = (Count(0, 0), Count(0, 0), Count(0, 0))


def made(new: NewKey, id: str, now: int) -> Key:
    """A new key, before any change to its account."""
    return Key(
        id=id,
        digest=new.digest,
        account=new.account,
        name=new.name,
        limits=new.limits,
        see_balance=new.see_balance,
        created=now,
        models=new.models,
        expires=new.expires,
        note=new.note,
        budgets=new.budgets,
        in_flight=new.in_flight,
        tokens=new.tokens,
        search=new.search,
        files=new.files,
        manages=new.manages,
        made_by=new.made_by,
        operator=new.operator,
    )


def wanted(key: Key) -> NewKey:
    """The key that is to be made with the terms of `key`; users of the API make no operators."""
    return NewKey(
        digest=key.digest,
        account=key.account,
        name=key.name,
        limits=key.limits,
        see_balance=key.see_balance,
        models=key.models,
        expires=key.expires,
        note=key.note,
        budgets=key.budgets,
        in_flight=key.in_flight,
        tokens=key.tokens,
        search=key.search,
        files=key.files,
        manages=key.manages,
        made_by=key.made_by,
    )


# Fields that an update of a key may change.
CHANGEABLE = (
    "name",
    "limits",
    "see_balance",
    "models",
    "expires",
    "note",
    "suspended",
    "budgets",
    "in_flight",
    "tokens",
    "search",
    "files",
    "manages",
    "operator",
)


def changed(key: Key, wanted: Key) -> Key:
    """`key` with the changeable fields of `wanted`."""
    return replace(key, **{name: getattr(wanted, name) for name in CHANGEABLE})


def rotated(key: Key, digest: str, until: int) -> Key:
    """`key` with another secret; the one before it works until `until`. Applying it again changes nothing."""
    if key.digest == digest:
        return key
    return replace(key, digest=digest, old_digest=key.digest, old_until=until)


def found_by(key: Key, digest: str) -> Key | None:
    """The key as the holder of this secret has it: an old secret expires earlier."""
    if digest == key.digest:
        return key
    if digest != key.old_digest:
        return None
    return replace(key, digest=digest, expires=min(key.expires, key.old_until))


def limits_in_force(own: Limits, counts: Counts | None) -> Limits:
    """The limits that apply: each of the key's own limits replaces the tier's. `counts` is None for an
    unlimited account."""
    if counts is None:
        return own
    minute, hour, day = counts
    if own.minute is None and own.hour is None and own.day is None and minute.rank == hour.rank == day.rank:
        return tier(minute.rank)
    return Limits(
        tier(minute.rank).minute if own.minute is None else own.minute,
        tier(hour.rank).hour if own.hour is None else own.hour,
        tier(day.rank).day if own.day is None else own.day,
    )


def counting(key: Key, unlimited: bool) -> tuple[tuple[Key, bool], ...]:
    """The keys in whose windows a request counts, and whether the tier limits them: the operator's key, and
    the one that it made."""
    root = (key.root, not unlimited)
    return (root,) if key.maker is None else (root, (key, False))


def in_flight(key: Key) -> tuple[Key, ...]:
    """The keys that count a request while it runs."""
    return tuple([each for each in key.line if each.in_flight is not None])


def uncounted(key: Key) -> Key:
    """The key for a lease that no key counts in flight."""
    maker = None if key.maker is None else replace(key.maker, in_flight=None)
    return replace(key, in_flight=None, maker=maker)


def crowded(key: Key, running: Callable[[str], int]) -> int | None:
    """The bound that leaves no room for one more request, given the running requests of a key by its id."""
    if key.in_flight is None and key.maker is None:
        return None
    full = [each.in_flight for each in in_flight(key) if running(each.id) >= (each.in_flight or 0)]
    return full[0] if full else None


def rolled_over(counts: Counts, now: int, rank: int = 0) -> Counts:
    """The counts of the windows at `now`; a new window gets the tier `rank`."""
    # A request may reach the store after one of the next window. It is counted there, because going back
    # would forget that window's count. Only a wrong clock can produce a bucket further ahead.
    minute, hour, day = [
        count if 0 <= count.bucket - now // size <= 1 else Count(now // size, 0, rank)
        for count, size in zip(counts, SIZES, strict=True)
    ]
    return minute, hour, day


def counted(counts: Counts) -> Counts:
    """The counts with one more request in each window."""
    (minute, m, a), (hour, h, b), (day, d, c) = counts
    return Count(minute, m + 1, a), Count(hour, h + 1, b), Count(day, d + 1, c)


def lifted(counts: Counts, rank: int) -> Counts:
    """The counts after a grant: open windows of a lower tier get this rank."""
    minute, hour, day = (count._replace(rank=max(count.rank, rank)) for count in counts)
    return minute, hour, day


def _window(limit: int, count: Count, size: int) -> Window:
    return Window(limit, max(0, limit - count.requests), (count.bucket + 1) * size, size)


def minute_window(limits: Limits, counts: Counts) -> Window | None:
    return None if limits.minute is None else _window(limits.minute, counts[0], MINUTE)


def seen_by(account: Account, key: Key) -> Account:
    """The account without its name and other keys, and with the budgets that bound the key."""
    scopes = ("", *(each.id for each in key.line))
    spent = tuple(each for each in account.spent if each.scope in scopes)
    return replace(account, name="", keys=(key,), spent=spent)


def windows(standing: Iterable[tuple[Limits, Counts]]) -> tuple[Window, ...]:
    """The tightest minute, hour and day of the keys that count a request; none where nothing limits it."""
    every = list(standing)
    found = []
    for name, place, size in (("minute", 0, MINUTE), ("hour", 1, HOUR), ("day", 2, DAY)):
        of = [(getattr(limits, name), counts[place]) for limits, counts in every]
        found.append(tightest(_window(limit, count, size) for limit, count in of if limit is not None))
    return tuple(window for window in found if window is not None)


def full_window(limits: Limits, counts: Counts) -> Window | None:
    """The window that refuses a request: of several full ones the one that resets last. None if none is
    full."""
    full = []
    for limit, count, size in zip((limits.minute, limits.hour, limits.day), counts, SIZES, strict=True):
        if limit is not None and count.requests >= limit:
            full.append(_window(limit, count, size))
    return last(full) if full else None


def last(windows: Iterable[Window | None]) -> Window | None:
    """The window that resets last."""
    found = [window for window in windows if window is not None]
    return max(found, key=lambda window: window.reset) if found else None


def tightest(windows: Iterable[Window | None]) -> Window | None:
    """The window with the fewest requests left."""
    found = [window for window in windows if window is not None]
    if len(found) < 2:
        return found[0] if found else None
    return min(found, key=lambda window: (window.remaining, window.limit))


def merged(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Grants by expiry, earliest first, one for each expiry, without empty ones."""
    amounts: dict[int, int] = {}
    for grant in grants:
        amounts[grant.expires] = amounts.get(grant.expires, 0) + grant.amount
    return tuple(Grant(amounts[expires], expires) for expires in sorted(amounts) if amounts[expires])


def unspent(balance: Balance) -> tuple[Grant, ...]:
    """The rest of each grant; they sum to `spendable`. The grant that expires first is spent first.

    A reserved credit counts as spent. If it is released after the grants were rewritten, more can be spent
    than the grants contain; this surplus has no expiry.
    """
    spent = sum(grant.amount for grant in balance.grants) - balance.spendable
    if spent < 0:
        return merged((*balance.grants, Grant(-spent)))
    left = []
    for grant in balance.grants:
        taken = min(spent, grant.amount)
        spent -= taken
        left.append(replace(grant, amount=grant.amount - taken))
    return merged(left)


def packed(grants: Iterable[Grant]) -> str:
    """The stored form of grants: "expiry:amount expiry:amount"."""
    return " ".join(f"{grant.expires}:{grant.amount}" for grant in grants)


@lru_cache(4_096)
def unpacked(text: str) -> tuple[Grant, ...]:
    pairs = (pair.split(":") for pair in text.split())
    return tuple(Grant(int(amount), int(expires)) for expires, amount in pairs)


def next_expiry(balance: Balance) -> int:
    return balance.grants[0].expires if balance.grants else NEVER


def folded(balance: Balance, now: int) -> Balance:
    """The balance with expired grants moved to `expired`."""
    if next_expiry(balance) > now:
        return balance
    left = unspent(balance)
    gone = sum(grant.amount for grant in left if grant.expires <= now)
    return replace(
        balance,
        grants=tuple(grant for grant in left if grant.expires > now),
        spendable=balance.spendable - gone,
        expired=balance.expired + gone,
    )


def granted(balance: Balance, grant: Grant, now: int) -> Balance:
    """Add credits; earlier spending stays with the older grants. Raises ValueError for a negative grant."""
    if grant.amount < 0:
        raise ValueError("a grant cannot take credits away")
    before = folded(balance, now)
    grants = merged((*unspent(before), grant))
    return folded(replace(before, grants=grants, spendable=before.spendable + grant.amount), now)


def deducted(balance: Balance, credits: int, now: int) -> Balance:
    """Take credits away, from the grant that expires first. Raises TooMuch if fewer can be spent."""
    before = folded(balance, now)
    if credits > before.spendable:
        raise TooMuch(before.spendable)
    taken = replace(before, spendable=before.spendable - credits)
    return replace(taken, grants=unspent(taken))


def taken(balance: Balance, most: int, now: int) -> Balance:
    """Take at most `most` credits away, and no more than can be spent."""
    return deducted(balance, min(most, folded(balance, now).spendable), now)


def reserved(balance: Balance, credits: int) -> Balance:
    return Balance(balance.grants, balance.spendable - credits, balance.consumed, balance.expired)


def returned(balance: Balance, credits: int, now: int) -> Balance:
    """Give reserved credits back. Expired grants are removed first, so that these credits do not count as
    theirs."""
    before = folded(balance, now)
    return replace(before, spendable=before.spendable + credits)
