"""The protocol of stores, and their errors. One contract suite runs on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kimi_gateway.accounts.values import (
    Account,
    Admission,
    Amount,
    Balance,
    Bound,
    Budget,
    Grant,
    Key,
    NewKey,
    Overview,
    Usage,
    UsageRow,
    Window,
)

NOTHING = Amount()
UNUSED = Usage()


class Refused(Exception):
    """Admission was refused; nothing was written."""


class KeyStale(Refused):
    """The key record is older than the account's key generation; read it again."""


class NoCredit(Refused):
    """Fewer spendable credits than the request costs. The store is asked each time."""


class WindowFull(Refused):
    """A rate window is full; `window` is the one that resets last among the full ones."""

    def __init__(self, window: Window) -> None:
        super().__init__(f"{window.limit} requests until {window.reset}")
        self.window = window


class InFlightFull(Refused):
    """The key, or its maker, has as many requests in flight as it may have (`limit`)."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} in flight")
        self.limit = limit


class StoreDown(Exception):
    """The store did not answer in time or lost the connection; the step may have been applied.

    `cause` is for the log: the name of the event and of its metric.
    """

    cause = "store_down"


class StoreThrottled(StoreDown):
    """The store works but has too many calls at once, of all accounts or of this one."""

    cause = "store_throttled"


class Unknown(LookupError):
    """No account or key has that name."""


class Ambiguous(Unknown):
    """Several accounts have that name; `accounts` are their ids, sorted."""

    def __init__(self, name: str, accounts: Iterable[str]) -> None:
        super().__init__(name)
        self.accounts = tuple(sorted(accounts))


class Taken(ValueError):
    """A key with this digest exists."""


class TooManyKeys(ValueError):
    """The account has as many keys as it may have."""


class Unlimited(ValueError):
    """An unlimited account has no balance, so a grant would change nothing."""


class Store(Protocol):
    """Keys, windows, credits and usage. Every method is atomic; `now` is in unix seconds.

    All methods raise `StoreDown` if the store cannot answer.
    """

    async def find_key(self, digest: str) -> Key | None:
        """The key with this SHA-256 (hex), also a revoked one, with the account's current generation."""
        ...

    async def admit(
        self,
        request: str,
        key: Key,
        cost: int,
        lease_until: int,
        now: int,
        bound: Bound | None = None,
    ) -> Admission:
        """Count `key` in its minute, hour and day and reserve `cost` credits, all or nothing.

        Idempotent on `request` while its lease exists: a repeated call returns the first call's admission,
        with the current balance and window. A lease exists until it is settled, released or, after
        `lease_until`, ended. An unlimited account reserves 0 credits. Each window keeps the tier of the
        balance that it began with, until a grant raises it.

        With a `bound` the key's and the account's budgets reserve the largest cost of the request, with an
        output limit that all of them allow. A lease that ends by itself leaves that spent.

        A key with a bound of requests in flight counts those that were admitted since it has one.

        Raises KeyStale, NoCredit, WindowFull, InFlightFull or BudgetFull, in this order.
        """
        ...

    async def hold(self, request: str, key: Key, lease_until: int, now: int, bound: Bound) -> Admission:
        """Reserve more of the budgets for a request that runs, under an id of its own: without a credit, and
        not counted in the windows. Idempotent as `admit`; `release` ends it.

        Raises KeyStale or BudgetFull.
        """
        ...

    async def settle(
        self, admission: Admission, model: str, usage: Usage, now: int, billed: Amount | None = None
    ) -> bool:
        """Consume the reserved credits and count the usage. False if the lease is gone (already done)."""
        ...

    async def release(
        self,
        admission: Admission,
        model: str,
        error: bool,
        now: int,
        billed: Amount | None = NOTHING,
        usage: Usage = UNUSED,
        cause: str = "",
    ) -> bool:
        """Give the reserved credits back; `error` counts one failed request with its `cause`, if it is
        one of accounts.usage.CAUSES. What the upstream counted is counted too. False if the lease is gone."""
        ...

    async def renew(self, admissions: Sequence[Admission], lease_until: int) -> None:
        """Extend leases that still exist; none is shortened."""
        ...

    async def purge(self, now: int) -> int:
        """Return the credits of expired leases. Returns the number of ended leases."""
        ...

    async def create_account(
        self, name: str, credits: Grant | None, now: int, invited_by: str = ""
    ) -> Account:
        """A new account with an opening balance; None makes it unlimited. `invited_by`: the id of the account
        whose invitation it followed."""
        ...

    async def open_account(self, credits: Grant, new: NewKey, now: int, invited_by: str = "") -> Account:
        """A new account without a name, with its first key, for somebody who has none: both or neither. The
        account of `new` is empty. Raises Taken."""
        ...

    async def create_key(self, new: NewKey, now: int, most: int | None = None) -> Key:
        """A new key. Raises Unknown if the account does not exist, Taken if the digest does, TooManyKeys if
        it has `most` keys that are not revoked."""
        ...

    async def update_key(self, key: str, change: Callable[[Key], Key], now: int) -> Key:
        """Change a key (by id or digest) at once, everywhere: admission refuses older records.

        `change` returns the new key. It must be pure and may be called more than once. Only the fields in
        `rules.CHANGEABLE` are written. Raises Unknown.
        """
        ...

    async def rotate_key(self, key: str, digest: str, until: int, now: int) -> Key:
        """Give a key (by id or digest) another secret. The present one works until `until`; one that was
        replaced before ends at once. Raises Unknown; Taken if another key has the digest."""
        ...

    async def revoke_key(self, key: str, now: int) -> Key:
        """Revoke a key (by id or digest) at once, everywhere. Raises Unknown."""
        ...

    async def rename_account(self, account: str, name: str, now: int) -> Account:
        """Give an account another name. Raises Unknown."""
        ...

    async def delete_account(self, account: str) -> None:
        """Delete an account with its keys, credits and usage. Its keys end at once, everywhere. Requests that
        run may finish; they are not counted. Raises Unknown."""
        ...

    async def set_budgets(self, account: str, wanted: Sequence[Budget], now: int) -> Account:
        """Put these in place of the account's budgets at once, everywhere. Raises Unknown."""
        ...

    async def grant(self, account: str, grant: Grant, now: int) -> Account:
        """Add credits; open windows get the tier of the new balance at once if it is higher.

        Raises Unknown, and Unlimited if the account has no balance.
        """
        ...

    async def deduct(self, account: str, credits: int, now: int) -> Account:
        """Take credits away; reserved ones stay. Raises Unknown, Unlimited, and TooMuch if fewer can be spent
        (then nothing is taken)."""
        ...

    async def fund(self, account: str, name: str, change: Callable[[Balance], Balance], now: int) -> bool:
        """Change a balance once in the life of the account: False if a change with this `name` was made.

        `change` gets the balance without expired grants. It must be pure and may be called more than once.
        More credits open windows as a grant does. A call that broke off may be repeated at any time. Raises
        Unknown, Unlimited, and what `change` raises.
        """
        ...

    async def funded(self, account: str, name: str) -> int | None:
        """The credits that the change of this name added; None if there was none. Raises Unknown."""
        ...

    async def tally(self, name: str, most: int, until: int, now: int) -> bool:
        """Count one more event of this `name`; False if there were `most`. The count ends at `until`. Put the
        period into the name. A call that broke off may have counted."""
        ...

    async def account(self, name: str, now: int) -> Account:
        """The account by its id or name, or by the id or digest of a key, without expired grants and leases.

        Raises Unknown, and Ambiguous if several accounts have the name.
        """
        ...

    async def accounts(self, now: int) -> list[Account]: ...

    async def usage(self, since: int, account: str | None = None) -> list[UsageRow]:
        """Rows from the hour that contains `since`, oldest first. What `settle` and `release` count is there
        with them, in the same atomic step. Rows older than the store keeps may be gone."""
        ...

    async def usage_sums(self, since: int, by: Sequence[str], account: str | None = None) -> list[UsageRow]:
        """The same, summed by some of accounts.usage.BY and sorted by them. Members that were summed over are
        empty; `hour` is the start of the hour or day."""
        ...

    async def overview(self, key: Key, since: int, now: int) -> Overview:
        """The part for the holder of a key, with usage from the hour that contains `since`. Raises KeyStale,
        as `admit` does."""
        ...

    async def close(self) -> None: ...
