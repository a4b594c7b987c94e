"""What every store promises, and how its one atomic step refuses. One contract suite runs on all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kimi_gateway.accounts.values import Account, Admission, Grant, Key, NewKey, Usage, UsageRow, Window


class Refused(Exception):
    """Admission said no; nothing was written."""


class KeyStale(Refused):
    """The key record is older than the account's key generation: read it again."""


class NoCredit(Refused):
    """Fewer spendable credits than the request costs. Asked of the store each time."""


class WindowFull(Refused):
    """A rate window is full; `window` is the one that resets last among the full ones."""

    def __init__(self, window: Window) -> None:
        super().__init__(f"{window.limit} requests until {window.reset}")
        self.window = window


class StoreDown(Exception):
    """The store did not answer in time or lost the connection; whether the step was applied is unknown.

    `cause` is for the log: it names the event, and the metric behind it.
    """

    cause = "store_down"


class StoreThrottled(StoreDown):
    """The store is well and has too much to do at once, of all accounts or of this one."""

    cause = "store_throttled"


class Unknown(LookupError):
    """No account or key goes by that name."""


class Ambiguous(Unknown):
    """Several accounts go by that name; `accounts` are their ids, sorted."""

    def __init__(self, name: str, accounts: Iterable[str]) -> None:
        super().__init__(name)
        self.accounts = tuple(sorted(accounts))


class Taken(ValueError):
    """A key with this digest exists."""


class Unlimited(ValueError):
    """An unlimited account has no balance: a grant would change nothing."""


class Store(Protocol):
    """Keys, windows, credits and usage. Every method is atomic; `now` is unix seconds.

    All raise `StoreDown` when the store cannot answer.
    """

    async def find_key(self, digest: str) -> Key | None:
        """The key with this SHA-256 (hex), revoked ones included, with the account's generation of now."""
        ...

    async def admit(self, request: str, key: Key, cost: int, lease_until: int, now: int) -> Admission:
        """Count `key` in its minute, hour and day and reserve `cost` credits, all or nothing.

        Idempotent on `request` while its lease lives: a repeated call gives the first call's admission, with
        the balance and the window as they are then. A lease lives until it is settled, released or, past
        `lease_until`, ended. An unlimited account reserves 0 credits.
        Each window keeps the tier of the balance that it began with, until a grant lifts it.
        Raises KeyStale, NoCredit (before WindowFull) or WindowFull.
        """
        ...

    async def settle(self, admission: Admission, model: str, usage: Usage, now: int) -> bool:
        """Consume the reserved credits and count the usage. False if the lease is gone (done already)."""
        ...

    async def release(self, admission: Admission, model: str, error: bool, now: int) -> bool:
        """Give the reserved credits back; `error` counts one failed request. False if the lease is gone."""
        ...

    async def renew(self, admissions: Sequence[Admission], lease_until: int) -> None:
        """Extend the leases that still live; none is shortened."""
        ...

    async def purge(self, now: int) -> int:
        """Return the credits of expired leases; the number of leases ended."""
        ...

    async def create_account(self, name: str, credits: Grant | None, now: int) -> Account:
        """A new account with an opening balance; None makes it unlimited."""
        ...

    async def create_key(self, new: NewKey, now: int) -> Key:
        """Raises Unknown for an account that does not exist, Taken for a digest that does."""
        ...

    async def update_key(self, key: str, change: Callable[[Key], Key], now: int) -> Key:
        """Change a key (by id or digest) at once, everywhere: admission refuses records from before it.

        `change` gives the key as it should be. It is pure, and may be called more than once. Only what
        `rules.CHANGEABLE` names is written. Raises Unknown.
        """
        ...

    async def revoke_key(self, key: str, now: int) -> Key:
        """End a key (by id or digest) at once, everywhere. Raises Unknown."""
        ...

    async def grant(self, account: str, grant: Grant, now: int) -> Account:
        """Add credits; open windows get the tier of the new balance at once, where that is higher.

        Raises Unknown, and Unlimited where the account has no balance to add to.
        """
        ...

    async def deduct(self, account: str, credits: int, now: int) -> Account:
        """Take credits away; reserved ones stay. Raises Unknown, Unlimited, and TooMuch (nothing is taken)
        where fewer can be spent."""
        ...

    async def account(self, name: str, now: int) -> Account:
        """By account id, account name, key id or key digest. Expired grants and leases are folded first.

        Raises Unknown, and Ambiguous where a name fits several accounts.
        """
        ...

    async def accounts(self, now: int) -> list[Account]: ...

    async def usage(self, since: int, account: str | None = None) -> list[UsageRow]:
        """Rows of the hours from the one that holds `since` on, oldest first."""
        ...

    async def close(self) -> None: ...
