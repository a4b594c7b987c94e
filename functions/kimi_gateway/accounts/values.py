"""Frozen values of rules and stores. Times are in unix seconds (UTC), credits are whole numbers."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, NamedTuple

from kimi_gateway.dataclass import dataclass

NEVER = 9_999_999_999  # an expiry that never comes


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests allowed in one UTC minute, hour and day; None means no limit."""

    minute: int | None = None
    hour: int | None = None
    day: int | None = None


WINDOWS = {"rpm": "minute", "rph": "hour", "rpd": "day"}  # of Limits, by the names for users
Unit = Literal["usd", "tokens"]
Period = Literal["minute", "day", "week", "month", "total"]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` micro-dollars or tokens in each UTC period."""

    unit: Unit
    period: Period
    limit: int


class Amount(NamedTuple):
    """`usd` in micro-dollars, and tokens of input and output. `minute`: the tokens that limits of a minute
    count, if they are not `tokens`."""

    usd: int = 0
    tokens: int = 0
    minute: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a request may use, asked for at `at` (unix seconds): tokens of input and output of each
    of its `calls`. With fewer than `least` tokens of output it is not worth sending. `estimate` is what all
    calls will probably use. Prices are micro-dollars for a million tokens, None if unknown. `fee` is in
    micro-dollars, once. `spare`: one of the calls is held for the answer of a request that searches; without
    it the request does not search."""

    at: int
    input: int
    output: int
    least: int
    estimate: int
    calls: int = 1
    input_price: int | None = None
    output_price: int | None = None
    fee: int = 0
    spare: bool = False


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made. Each field is as in `Key`; the store adds the rest."""

    digest: str
    account: str
    name: str = ""
    limits: Limits = Limits()
    see_balance: bool = False
    models: tuple[str, ...] = ()
    expires: int = NEVER
    note: str = ""
    budgets: tuple[Budget, ...] = ()
    in_flight: int | None = None
    tokens: int | None = None
    search: bool = True
    files: bool = True
    manages: bool = False
    made_by: str = ""
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key as stored; the key itself is shown once, and only its hash is kept.

    `generation` is the account's key generation when this record was read. Admission refuses an older one, so
    a cached record cannot outlive a change. `models` are the models and aliases that the key may use, with
    `*` as a wildcard; empty means all. `expires` is exclusive. `note` is the operator's own.
    After a rotation `old_digest` works until `old_until`. `shared` are the budgets of the account.

    `in_flight` bounds the requests that run at one time, `tokens` the input and output of one request; None
    bounds nothing. `search` and `files` say whether it may search the web and use files. `manages`: it may
    make keys of its account. `operator`: it may use /admin.
    A key that another one made (`made_by`, an id) can do nothing that its `maker`
    cannot do now, and counts in the maker's windows and budgets too.
    """

    id: str
    digest: str
    account: str
    name: str = ""
    limits: Limits = Limits()
    see_balance: bool = False
    revoked: bool = False
    created: int = 0
    generation: int = 0
    models: tuple[str, ...] = ()
    expires: int = NEVER
    note: str = ""
    suspended: bool = False
    old_digest: str = ""
    old_until: int = 0
    budgets: tuple[Budget, ...] = ()
    shared: tuple[Budget, ...] = ()
    in_flight: int | None = None
    tokens: int | None = None
    search: bool = True
    files: bool = True
    manages: bool = False
    made_by: str = ""
    maker: Key | None = None
    operator: bool = False

    @property
    def line(self) -> tuple[Key, ...]:
        """The keys whose limits and rights apply: its own, and those of its maker."""
        return (self,) if self.maker is None else (self, self.maker)

    @property
    def root(self) -> Key:
        """The key that the operator made."""
        return self if self.maker is None else self.maker


@dataclass(frozen=True, slots=True)
class Grant:
    """Credits that expire together. `expires` is exclusive: at that second they are gone."""

    amount: int
    expires: int = NEVER


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance of an account: `spendable` = granted - consumed - reserved - expired.

    `grants` are as of the last rewrite, earliest expiry first. Later spending is the difference between their
    sum and `spendable`, so the hot path changes one number.
    """

    grants: tuple[Grant, ...] = ()
    spendable: int = 0
    consumed: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The state of one rate window, for the X-RateLimit headers. `reset` is the unix second of its end,
    `size` its length in seconds."""

    limit: int
    remaining: int
    reset: int
    size: int = field(default=60, compare=False)


@dataclass(frozen=True, slots=True)
class Admission:
    """One admitted request: a credit is reserved under `id` until `expires`, when it returns by itself.

    `spendable` is the balance after this reservation, None for an unlimited account. `window` is the minute
    window after this request, None if no limit applies.
    """

    id: str
    key: Key
    cost: int
    expires: int
    spendable: int | None
    window: Window | None
    bound: Bound | None = None
    output: int = 0
    tokens: Window | None = None
    asked: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and cost of one request, as the upstream counted them, else estimated.

    `input` includes `cached` tokens and those `written` to the vendor's cache; `output` includes `reasoning`.
    Money is in micro-dollars at list prices: `cost` includes the `fees` of searches; `saved` is what the
    cached tokens would have cost beyond their price. An unknown price counts as 0.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    fees: int = 0
    cost: int = 0
    saved: int = 0


class Spent(NamedTuple):
    """The spent or reserved part of a budget in its present period, which ends at `resets` (unix seconds).
    `scope` is the key's id, or "" for a budget of the account."""

    scope: str
    budget: Budget
    amount: int
    resets: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account as shown to the operator. `credits` is the settled balance, including reservations. `grants`
    are the remaining amounts, earliest expiry first; they sum to `credits` - `reserved`."""

    id: str
    name: str
    unlimited: bool
    credits: int
    reserved: int
    consumed: int
    expired: int
    created: int
    grants: tuple[Grant, ...] = ()
    keys: tuple[Key, ...] = field(default=())
    budgets: tuple[Budget, ...] = ()
    spent: tuple[Spent, ...] = ()
    invited_by: str = ""  # the id of an account


@dataclass(frozen=True, slots=True)
class Overview:
    """A part of an account for the holder of one of its keys. `account` has no name and this key only;
    `windows` are the minute, hour and day that limit the key; `usage` are sums by hour."""

    account: Account
    windows: tuple[Window, ...]
    usage: tuple[UsageRow, ...]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One hour of one key on one model. `requests` were answered and charged, `errors` were not. `free` were
    neither, but the upstream counted tokens for them: empty answers, and clients that left early.

    `last` is the unix second of the last request, `last_cost` its cost. `causes` are the errors by cause
    (accounts/usage.py), by name; rows of earlier releases have none. The other members are as in `Usage`.
    """

    hour: int
    account: str
    key: str
    model: str
    requests: int
    errors: int
    input: int
    output: int
    credits: int
    last: int
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    fees: int = 0
    cost: int = 0
    saved: int = 0
    free: int = 0
    last_cost: int = 0
    causes: tuple[tuple[str, int], ...] = ()
