"""Who may come in: credentials to a key, a key to an admission, and the headers that tell of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.bucket import Buckets, Newest
from kimi_gateway.accounts.store import KeyStale, NoCredit, Store, StoreDown, WindowFull
from kimi_gateway.accounts.values import Admission, Key, Window
from kimi_gateway.errors import InsufficientCredits, InvalidKey, RateLimited, Unavailable
from kimi_gateway.observe import emit
from kimi_gateway.values import Headers

REFUSAL_REMEMBERED = 30  # seconds at most, so that a flood costs few writes
CACHED = 10_000  # key records, refusals
_WINDOWS = {60: "minute", 3_600: "hour", 86_400: "day"}  # by their length; the names of Limits
_CHALLENGE = (("www-authenticate", "Bearer"),)


class Gate:
    def __init__(self, store: Store, clock: Callable[[], float], lease: float) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._keys = Newest[Key](CACHED)
        self._refusals = Newest[tuple[float, Window]](CACHED)
        self._free = Buckets(rate=10, burst=60)

    async def authenticate(self, headers: Headers) -> Key:
        """The caller's key, from cache where it may be: admission refuses a record that is out of date.

        Raises InvalidKey; Unavailable when the store is down.
        """
        found = [await self._known(credential) for credential in credentials(headers)]
        return found[0]

    async def authenticate_free(self, headers: Headers) -> Key:
        """The same for calls that are not admitted: the record is read anew, and a bucket guards them."""
        for credential in credentials(headers):
            self._keys.pop(keys.digest(credential), None)
        key = await self.authenticate(headers)
        wait = self._free.take(key.id, self._clock())
        if wait:
            raise RateLimited("Too many free calls with this key.", retry_after=math.ceil(wait))
        return key

    async def admit(self, request: str, key: Key, cost: int, again: bool = True) -> Admission:
        """With a key record that is out of date it is read anew and asked `again`, once.

        Raises InvalidKey, InsufficientCredits, RateLimited, or Unavailable when the store is down.
        """
        now = self._clock()
        until, window = self._refusals.get(key.id, (0.0, None))
        if window is not None and now < until:
            raise rate_limited(window, now, key)
        try:
            return await self._store.admit(request, key, cost, math.ceil(now + self._lease), int(now))
        except KeyStale as exc:
            self._keys.pop(key.digest, None)
            if not again:
                raise _invalid() from exc
            return await self.admit(request, await self._lookup(key.digest), cost, again=False)
        except (NoCredit, WindowFull, StoreDown) as exc:
            raise self._refusal(exc, key, now) from exc

    def _refusal(
        self, exc: NoCredit | WindowFull | StoreDown, key: Key, now: float
    ) -> InsufficientCredits | RateLimited | Unavailable:
        if isinstance(exc, NoCredit):
            return InsufficientCredits(
                "The account has no credits left.", headers=(("x-credits-remaining", "0"),)
            )
        if isinstance(exc, StoreDown):
            return _store_down("admit", exc)
        self._refusals[key.id] = (min(exc.window.reset, now + REFUSAL_REMEMBERED), exc.window)
        return rate_limited(exc.window, now, key)

    async def _known(self, credential: str) -> Key:
        digest = keys.digest(credential)
        cached = self._keys.get(digest)
        if cached is not None:
            return cached
        if not keys.well_formed(credential):
            raise _invalid()
        return await self._lookup(digest)

    async def _lookup(self, digest: str) -> Key:
        try:
            key = await self._store.find_key(digest)
        except StoreDown as exc:
            raise _store_down("find_key", exc) from exc
        if key is None or key.revoked:
            raise _invalid()
        self._keys[digest] = key
        return key


def credentials(headers: Headers) -> list[str]:
    """The credential of each header that carries one, Bearer first; equal ones once. Raises InvalidKey.

    One header twice is ambiguous, so it is refused (docs/contract.md, Authentication).
    """
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


def _invalid() -> InvalidKey:
    return InvalidKey("Invalid API key provided.", headers=_CHALLENGE)


def _store_down(step: str, exc: StoreDown) -> Unavailable:
    emit("store_down", logging.ERROR, step=step, detail=str(exc))
    return Unavailable(
        "The gateway cannot check keys and credits at present.", retry_after=1, cause="store_down"
    )


def rate_limited(window: Window, now: float, key: Key) -> RateLimited:
    wait = max(1, math.ceil(window.reset - now))
    name = _WINDOWS[window.size]
    own = getattr(key.limits, name) is not None
    whose = "this key's own limit" if own else "this account's limit at its present balance"
    noun = "request" if window.limit == 1 else "requests"
    return RateLimited(
        f"{window.limit} {noun} per {name} reached ({whose}). Try again in {wait} s.",
        retry_after=wait,
        headers=window_headers(window),
    )


def window_headers(window: Window | None) -> tuple[tuple[str, str], ...]:
    if window is None:
        return ()
    return (
        ("x-ratelimit-limit", str(window.limit)),
        ("x-ratelimit-remaining", str(window.remaining)),
        ("x-ratelimit-reset", str(window.reset)),
    )


def admission_headers(admission: Admission, released: bool = False) -> list[tuple[str, str]]:
    """Limits and balance as of this request; `released` when its credit was given back."""
    headers = list(window_headers(admission.window))
    if admission.spendable is not None:
        remaining = admission.spendable + (admission.cost if released else 0)
        headers.append(("x-credits-remaining", str(remaining)))
    return headers
