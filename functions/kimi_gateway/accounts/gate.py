"""Authentication and admission: finds the key, refuses cheaply, and admits requests."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import astuple, fields
from operator import attrgetter

from kimi_gateway.accounts import keys, refusals, rules, terms
from kimi_gateway.accounts.bucket import BoundedDict, Buckets
from kimi_gateway.accounts.budgets import BudgetFull
from kimi_gateway.accounts.guests import GuestKey, Guests
from kimi_gateway.accounts.places import Places
from kimi_gateway.accounts.store import (
    InFlightFull,
    KeyStale,
    NoCredit,
    Store,
    StoreDown,
    Unknown,
    WindowFull,
)
from kimi_gateway.accounts.values import Account, Admission, Bound, Key, Window
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InsufficientCredits, InvalidKey, RateLimited, Unavailable
from kimi_gateway.http import Headers
from kimi_gateway.observe import emit

REFUSAL_REMEMBERED = 30  # seconds at most, so that a flood costs few writes
CACHED = 10_000  # key records, refusals
# The tiers that a grant may raise, by each of their limits; no two tiers share one.
LIFTABLE = {limit: rank for rank in range(len(rules.TIERS) - 1) for limit in astuple(rules.tier(rank))}
WASTED_BYTES = 64 * 1024  # bytes of a refused body that count as one more refused request
_CHALLENGE = (("www-authenticate", "Bearer"),)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A window that was full at `at` (unix seconds); forgotten at `until` (monotonic clock)."""

    window: Window
    at: float
    until: float

    def holds(self, now: float, monotonic: float) -> bool:
        """Whether the refusal still applies. A changed wall clock may end it early but cannot prolong it."""
        within = self.at <= now < min(self.window.reset, self.at + REFUSAL_REMEMBERED)
        return within and monotonic < self.until


_granted = attrgetter(*[each.name for each in fields(Admission) if each.name != "asked"])


class Gate:
    """`clock` returns unix seconds, `monotonic` a clock that is never set. `concurrency` bounds the upstream
    calls of an account in this process."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        lease: float,
        concurrency: int = 250,
        monotonic: Callable[[], float] = time.monotonic,
        guests: Guests | None = None,
    ) -> None:
        self.places = Places(concurrency)
        self.guests = guests
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._lease = lease
        self._keys = BoundedDict[Key](CACHED)
        self._refusals = BoundedDict[_Refusal](CACHED)
        self._has_credit = BoundedDict[bool](CACHED)  # of accounts, as of the store's last answer
        self._unlimited = BoundedDict[bool](CACHED)  # accounts
        self._free = Buckets(rate=10, burst=60)
        self.names = Buckets(rate=2, burst=100_000)  # new Idempotency-Keys by account; each is kept for a day
        self._unknown = Buckets(rate=20, burst=200)  # by address: keys that the store does not know
        self._wasted = Buckets(rate=10, burst=300)
        self._free_bodies = Buckets(rate=32, burst=1024)  # in WASTED_BYTES: 2 MiB a second after 64 MiB
        # The store is asked about a full window, so that a grant counts at once.
        self._asked_again = Buckets(rate=1, burst=5)

    async def authenticate(self, headers: Headers, client: str = "") -> Key:
        """The caller's key, from cache if possible; admission refuses an outdated record.

        `client` is the address for which unknown keys are counted. Raises InvalidKey, RateLimited;
        Unavailable if the store is down.
        """
        given = credentials(headers)
        if self.guests is not None and not (given := _own(given)):
            return await self.guests.key(credentials(headers), client)
        found = [await self._known(credential, client) for credential in given]
        return found[0]

    async def authenticate_free(self, headers: Headers, client: str = "", fresh: bool = True) -> Key:
        """Like `authenticate`, for calls without admission. The record is read again if it is to be `fresh`,
        and a bucket bounds these calls, including the reads of known keys."""
        now, found, given = self._clock(), list[Key](), credentials(headers)
        if self.guests is not None and not (given := _own(given)):
            found.append(await self.guests.key(credentials(headers), client))
        for credential in given:
            known = self._keys.get(keys.digest(credential))
            if known is None or not fresh:
                found.append(await self._known(credential, client))
                continue
            if wait := self._free.wait(known.root.id, now):
                raise refusals.too_many_free(wait)
            del self._keys[known.digest]
            found.append(await self._lookup(known.digest))
        wait = self._free.take(found[0].root.id, now)
        if wait:
            raise refusals.too_many_free(wait)
        return found[0]

    async def refuse(self, key: Key, is_large: Callable[[], bool] = bool) -> None:
        """Refuse, before the body is read, a request that is known to fail. For a large body the store is
        asked about an account that is not known yet; `is_large` is called for such an account only.

        Raises InsufficientCredits, RateLimited, InvalidKey; Unavailable if the store is down.
        """
        now, funded = self._clock(), self._has_credit.get(key.account)
        if funded is False:
            if self._wasted.wait(key.root.id, now):
                raise refusals.no_credit()  # the store is asked 10 times a second, as the bucket refills
            await self._require_credit_now(key, now)
        refusal = self._refusals.get(key.id)
        if refusal is not None and refusal.holds(now, self._monotonic()):
            if not await self._is_lifted(refusal, key, now):
                raise refusals.rate_limited(refusal.window, now, key)
            del self._refusals[key.id]
        if (wait := self._wasted.wait(key.root.id, now)) and not await self.is_unlimited(key):
            raise refusals.refused_too_often(wait)
        if funded is None and not isinstance(key, GuestKey) and is_large():
            await self._require_credit_now(key, now)

    async def refuse_named(self, key: Key, is_large: Callable[[], bool]) -> None:
        """As `refuse`, for a request with an Idempotency-Key that may be new."""
        await self.refuse(key, is_large)
        if wait := self.names.wait(key.account, self._clock()):
            raise refusals.too_many_names(wait)

    def named(self, key: Key) -> None:
        """Count a new Idempotency-Key."""
        self.names.spend(key.account, self._clock(), 1)

    async def refuse_unpaid(self, key: Key) -> None:
        """As `refuse`, for a body of any size that no admission follows: the store is asked each time."""
        await self.refuse(key)
        await self._require_credit_now(key, self._clock())

    async def refuse_free(self, key: Key, is_large: Callable[[], bool]) -> None:
        """Refuse, before it is read, the body of a free call: a large one without credits, or after too many
        bytes. Raises InsufficientCredits, RateLimited, and what `has_credit` raises."""
        if is_large():
            if wait := self._free_bodies.wait(key.root.id, self._clock()):
                raise refusals.too_many_free(wait)
            if not isinstance(key, GuestKey):
                await self.require_credit(key)

    def read_free(self, key: Key, size: int) -> None:
        """Count the body of a free call."""
        if size > WASTED_BYTES:
            self._free_bodies.spend(key.root.id, self._clock(), size / WASTED_BYTES)

    async def _require_credit_now(self, key: Key, now: float) -> None:
        if not await self.has_credit(key):
            self._wasted.spend(key.root.id, now, 1)
            raise refusals.no_credit()

    def wasted(self, key: Key, size: int) -> None:
        """Count a request of `size` bytes that was refused at no cost."""
        self._wasted.spend(key.root.id, self._clock(), 1 + size / WASTED_BYTES)

    async def has_credit(self, key: Key) -> bool:
        """Whether the account may spend anything. Asks the store each time, except for unlimited accounts. A
        guest may spend nothing of the operator's.

        Raises InvalidKey, Unavailable.
        """
        if isinstance(key, GuestKey):
            return False
        if self._unlimited.get(key.account):
            return True
        account = await self._account(key)
        self._has_credit[key.account] = funded = account.unlimited or account.credits > account.reserved
        return funded

    async def _is_lifted(self, refusal: _Refusal, key: Key, now: float) -> bool:
        """Whether a grant has raised the account's tier since. Asks the store at most once a second."""
        guest = isinstance(key, GuestKey)
        if guest or refusal.window.limit not in LIFTABLE or self._asked_again.take(key.root.id, now):
            return False
        account = await self._account(key)
        return rules.rank(account.credits - account.reserved) > LIFTABLE[refusal.window.limit]

    async def _account(self, key: Key) -> Account:
        """The account as stored now. Raises InvalidKey for a revoked key, and Unavailable."""
        try:
            account = await self._store.account(key.account, int(self._clock()))
        except StoreDown as exc:
            raise store_down("account", exc) from exc
        except Unknown as exc:
            raise _invalid() from exc
        known = next((known for known in account.keys if known.id == key.id), None)
        self._check(known, key.digest)
        self._unlimited[key.account] = account.unlimited
        return account

    async def is_unlimited(self, key: Key) -> bool:
        """Whether the account is unlimited. Asks the store once."""
        if key.account not in self._unlimited:
            await self.has_credit(key)
        return self._unlimited.get(key.account, False)

    async def require_credit(self, key: Key) -> None:
        """For calls upstream without admission. Raises InsufficientCredits, and the errors of
        `has_credit`."""
        if not await self.has_credit(key):
            raise refusals.no_credit()

    async def admit(
        self,
        request: str,
        key: Key,
        cost: int,
        models: Collection[str] = (),
        bound: Callable[[], Awaitable[Bound]] | None = None,
        again: bool = True,
    ) -> Admission:
        """Count the request and reserve its credit. An outdated key record is read again, once.

        `models` are the names of the model asked for; none is any. `bound` says what the request may use at
        most; it is called if there are budgets. Raises InvalidKey, PermissionDenied, InsufficientCredits,
        BudgetExceeded, RateLimited; Unavailable if the store is down.
        """
        limits = await bound() if bound is not None and (key.budgets or key.shared) else None
        if refused := refusals.of_terms(key, models, limits):
            if not again:
                raise refused
            return await self.admit(request, await self._lookup(key.digest), cost, models, bound, False)
        now = self._clock()
        refusal = self._refusals.get(key.id)
        if refusal is not None and refusal.holds(now, self._monotonic()):
            raise refusals.rate_limited(refusal.window, now, key)
        try:
            lease_until = math.ceil(now + self._lease)
            if isinstance(key, GuestKey) and self.guests is not None:
                admission = self.guests.admit(request, key, lease_until, int(now))
            else:
                admission = await self._store.admit(request, key, cost, lease_until, int(now), limits)
            return Admission(*_granted(admission), asked=int(now))  # type: ignore[misc]
        except KeyStale as exc:
            self._keys.pop(key.digest, None)
            if not again:
                raise _invalid() from exc
            return await self.admit(request, await self._lookup(key.digest), cost, models, bound, False)
        except BudgetFull as exc:
            raise refusals.over_budget(exc, now) from exc
        except InFlightFull as exc:
            raise refusals.too_many_in_flight(exc.limit) from exc
        except (NoCredit, WindowFull, StoreDown) as exc:
            raise self._refusal(exc, key, cost, now) from exc

    def _refusal(
        self, exc: NoCredit | WindowFull | StoreDown, key: Key, cost: int, now: float
    ) -> InsufficientCredits | RateLimited | Unavailable:
        if isinstance(exc, NoCredit):
            if cost > 1:
                return refusals.too_few_credits(cost)
            self._has_credit[key.account] = False
            return refusals.no_credit()
        if isinstance(exc, StoreDown):
            return store_down("admit", exc)
        until = self._monotonic() + REFUSAL_REMEMBERED
        self._refusals[key.id] = _Refusal(exc.window, now, until)
        return refusals.rate_limited(exc.window, now, key)

    async def _known(self, credential: str, client: str) -> Key:
        digest = keys.digest(credential)
        cached = self._keys.get(digest)
        if cached is not None:
            if cached.expires > self._clock():
                return cached
            del self._keys[digest]  # it may have been extended
        if not keys.well_formed(credential):
            foreign = not credential.startswith(keys.PREFIX)
            raise _invalid(" Keys of this gateway begin with sk-kg-." if foreign else "")
        now = self._clock()
        if wait := self._unknown.take(client, now):
            text = "Too many unknown keys from this address. Check the key."
            raise RateLimited.passing(text, wait, "unknown_keys")
        key = await self._lookup(digest)
        self._unknown.give_back(client, now)
        return key

    async def _lookup(self, digest: str) -> Key:
        try:
            key = await self._store.find_key(digest)
        except StoreDown as exc:
            raise store_down("find_key", exc) from exc
        key = self._check(key, digest)
        self._keys[digest] = key
        return key

    def _check(self, key: Key | None, digest: str) -> Key:
        """Raises InvalidKey if the key does not work now, and forgets it."""
        text = None if key is None else terms.refusal(key, self._clock())
        if key is None or text is not None:
            self._keys.pop(digest, None)
            raise _invalid() if text is None else InvalidKey(text, headers=_CHALLENGE)
        return key


def credentials(headers: Headers) -> list[str]:
    """The distinct credentials of the headers, Bearer first. Raises InvalidKey if there are none, or if a
    header occurs twice, which is ambiguous (docs/contract.md, Authentication)."""
    bearers, api_keys = headers.all("authorization"), headers.all("x-api-key")
    if len(bearers) > 1 or len(api_keys) > 1:
        raise InvalidKey("The credentials are given more than once.", headers=_CHALLENGE)
    found = []
    for value in bearers:
        scheme, _, rest = value.strip().partition(" ")
        found.append(rest.strip() if scheme.lower() == "bearer" else "")
    found += [value.strip() for value in api_keys]
    if not found:
        raise InvalidKey(
            "No API key given. Send it as Authorization: Bearer KEY or as X-API-Key.", headers=_CHALLENGE
        )
    return list(dict.fromkeys(found))


def _own(given: Collection[str]) -> list[str]:
    """The credentials that are meant as keys of this gateway."""
    return [credential for credential in given if credential.startswith(keys.PREFIX)]


def _invalid(hint: str = "") -> InvalidKey:
    return InvalidKey(f"Invalid API key provided.{hint}", headers=_CHALLENGE)


def store_down(step: str, exc: StoreDown) -> Unavailable:
    emit(exc.cause, logging.ERROR, step=step, detail=str(exc))
    return Unavailable(
        "The gateway cannot check keys and credits at present.", retry_after=1, cause=exc.cause
    )
