"""An account's hot item in DynamoDB: its attributes, and an image of it. Pure.

One item is one atomic step and costs a write unit for each KiB begun, so names and values are short.

b   credits to spend = granted - consumed - reserved - expired; absent for an unlimited account
c   consumed             x   expired
kg  key generation       ks  short ids of the valid keys
v<kid>  the version of a key that was changed
gr  grants as "expiry:amount …" at the last rewrite       gx  the earliest expiry in it
gi  ids of the latest grants, with their time, to recognise a repeated grant
m<kid><bucket>  h…  d…   requests in a minute, hour, day: a new window needs no read
M<kid><bucket>  H…  D…   the same if the tier limits them, with the tier's rank in front (see `SPANS`)
r<request><kid>…         a lease: its output limit, its cost and its expiry in one number; the keys are those
                         that count it in flight
n<kid>                   requests in flight of a key that has a bound of them
bg  budgets of the account       B…  counters of budgets (storage/dynamodb/budgets.py)
q<hour><kid><model>  t…  i…  p…  l…  e…   usage of an hour (storage/dynamodb/tally.py)
o   usage of past hours on its way to the history, as a map of the same names
f   number of moves of usage to the history
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, NamedTuple

from kimi_gateway.accounts import rules
from kimi_gateway.accounts.values import Balance, Key, Limits
from kimi_gateway.dataclass import dataclass

Raw = dict[str, dict[str, Any]]  # an item in DynamoDB's JSON
HOT = "-"  # the sort key of hot items
COST = EXPIRY = 10**10  # a lease's number is (output * COST + cost) * EXPIRY + expiry
SPANS = {"M": 10**3, "H": 10**5, "D": 10**6}  # a window's number is its rank times this, plus its requests
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def base36(value: int) -> str:
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = _BASE36[digit] + digits
    return digits


def partition(account: str) -> str:
    return f"A#{account}"


def kid(key: str) -> str:
    """The short id of a key within its account: key_abcdefghij becomes ab, key_Abcdefghij becomes Abcd."""
    return key[4 : 4 + kid_length(key[4])]


def kid_length(first: str) -> int:
    """The length of a short id by its first character. There are 1,296 of two characters and 1.2 million of
    four; - is the account itself."""
    return 4 if first.isupper() else 1 if first == "-" else 2


def bucket_of(counter: str) -> str:
    """The end of a counter's name, behind its letter and its short id."""
    return counter[1 + kid_length(counter[1]) :]


def lease_name(request: str, key: Key) -> str:
    """The attribute of a lease: 48 bits of the request id's hash, unique among the few in flight, and the
    keys that count it."""
    counted = "".join([kid(each.id) for each in rules.in_flight(key)])
    return "r" + urlsafe_b64encode(sha256(request.encode()).digest()[:6]).decode() + counted


def counted_by(lease: str) -> list[str]:
    """The short ids of the keys that count a lease, by its attribute."""
    rest, found = lease[9:], []
    while rest:
        length = kid_length(rest[0])
        found.append(rest[:length])
        rest = rest[length:]
    return found


def window_names(key: Key, now: int, tiers: bool) -> tuple[str, str, str]:
    """The attributes of the minute, hour and day at `now`. With `tiers`, windows without a limit of the key's
    own carry a rank."""
    minute, hour, day = (base36(now // size) for size in rules.SIZES)
    short, own = kid(key.id), key.limits
    m = "M" if tiers and own.minute is None else "m"
    h = "H" if tiers and own.hour is None else "h"
    d = "D" if tiers and own.day is None else "d"
    return f"{m}{short}{minute}", f"{h}{short}{hour}", f"{d}{short}{day}"


class Lease(NamedTuple):
    """`output` is the output limit of each call, if the request has budgets."""

    cost: int
    expires: int
    output: int = 0

    @property
    def number(self) -> int:
        return (self.output * COST + self.cost) * EXPIRY + self.expires

    @classmethod
    def of(cls, number: int) -> Lease:
        rest, expires = divmod(number, EXPIRY)
        output, cost = divmod(rest, COST)
        return cls(cost, expires, output)


@dataclass(frozen=True, slots=True)
class Image:
    """The item as a call returned it."""

    raw: Raw

    def number(self, name: str) -> int:
        value = self.raw.get(name)
        return int(value["N"]) if value else 0

    @property
    def unlimited(self) -> bool:
        return "b" not in self.raw

    @property
    def generation(self) -> int:
        return self.number("kg")

    def has_key(self, key: str) -> bool:
        """Whether a key (by id) is valid."""
        return "ks" in self.raw and kid(key) in self.raw["ks"]["SS"]

    @property
    def balance(self) -> Balance:
        if self.unlimited:
            return Balance()
        grants = rules.unpacked(self.raw["gr"]["S"])
        return Balance(grants, self.number("b"), self.number("c"), self.number("x"))

    def lease(self, request: str, key: Key) -> Lease | None:
        name = lease_name(request, key)
        return Lease.of(self.number(name)) if name in self.raw else None

    def leases(self) -> dict[str, Lease]:
        """Leases by attribute."""
        return {name: Lease.of(int(value["N"]))
                for name, value in self.raw.items() if name[0] == "r"}  # fmt: skip

    def ended(self, now: int) -> dict[str, Lease]:
        return {name: lease for name, lease in self.leases().items() if lease.expires <= now}

    def running(self, key: str) -> int:
        """The requests that count as running for a key (by id)."""
        return self.number(f"n{kid(key)}")

    def standing(self, key: Key, now: int, rank: int) -> list[tuple[Limits, rules.Counts]]:
        """The limits in force, and the counts, of each key in whose windows a request counts."""
        standing = []
        for each, tiered in rules.counting(key, self.unlimited):
            counts = self._counts(each, now, rank, tiered)
            standing.append((rules.limits_in_force(each.limits, counts if tiered else None), counts))
        return standing

    def _counts(self, key: Key, now: int, rank: int, tiered: bool) -> rules.Counts:
        """Counts of the windows at `now`; a new window would begin with `rank`."""
        minute, hour, day = window_names(key, now, tiered)
        return (
            self._count(minute, now // rules.MINUTE, rank),
            self._count(hour, now // rules.HOUR, rank),
            self._count(day, now // rules.DAY, rank),
        )

    def _count(self, name: str, bucket: int, rank: int) -> rules.Count:
        if name not in self.raw:
            return rules.Count(bucket, 0, rank)
        value = self.number(name)
        began, requests = divmod(value, SPANS[name[0]]) if name[0] in SPANS else (0, value)
        return rules.Count(bucket, requests, began)

    def of_ended_keys(self, but: str) -> list[str]:
        """The attributes of revoked keys that nothing else ends: versions, budgets, requests in flight.
        `but`: a short id whose attributes stay."""
        valid = {"-", but, *(self.raw["ks"]["SS"] if "ks" in self.raw else ())}
        heads = [(name, {"B": 2, "v": 1, "n": 1}.get(name[0], 0)) for name in self.raw if len(name) > 2]
        return [name for name, at in heads if at and name[at : at + kid_length(name[at])] not in valid]

    def below(self, rank: int, now: int) -> dict[str, int]:
        """The ranks of open windows that began with a lower one, by attribute."""
        old = set(self.old_windows(now))
        ranks = {
            name: int(value["N"]) // SPANS[name[0]]
            for name, value in self.raw.items()
            if name[0] in SPANS and name not in old
        }
        return {name: began for name, began in ranks.items() if began < rank}

    def old_windows(self, now: int) -> list[str]:
        """Counters of windows before the previous one, which no late request can use any more."""
        oldest = {
            letter: base36(now // size - 1)
            for letters, size in zip(("mM", "hH", "dD"), rules.SIZES, strict=True)
            for letter in letters
        }
        return [
            name
            for name in self.raw
            if (last := oldest.get(name[0])) and (len(bucket_of(name)), bucket_of(name)) < (len(last), last)
        ]

    @property
    def folds(self) -> int:
        return self.number("f")

    @property
    def outbox(self) -> Raw:
        """Usage on its way to the history, under its original names."""
        moved: Raw = self.raw["o"]["M"] if "o" in self.raw else {}
        return moved
