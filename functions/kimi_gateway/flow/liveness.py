"""Whether Kimi accepts a token, remembered for ten minutes.

Tokens come from callers without a key, so new questions are limited: by address, over all addresses, and at
a time. A token is known by its hash.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Awaitable, Callable

from kimi_gateway.accounts.bucket import BoundedDict, Buckets, SlidingWindow
from kimi_gateway.errors import RateLimited
from kimi_gateway.providers.provider import Provider, Token

REMEMBERED = 600  # seconds
KEPT = 10_000  # tokens
ASKING = 32  # questions upstream at a time, in each process
# Keys of the platform (docs/upstream.md). Everything else is refused without a question.
_PLATFORM = re.compile(r"sk-[A-Za-z0-9_-]{1,256}")


def is_platform_key(token: str) -> bool:
    """Whether the text can be a key of the platform."""
    return _PLATFORM.fullmatch(token) is not None


def name_of(token: str) -> str:
    """The name under which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Liveness:
    """`ask` asks the upstream and raises UpstreamFailure; `clock` returns unix seconds."""

    def __init__(self, ask: Callable[[Token], Awaitable[bool]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._live = BoundedDict[float](KEPT)  # apart from the others, whose flood would displace them
        self._dead = BoundedDict[float](KEPT)
        self._new = SlidingWindow(most=60, seconds=60)  # by address
        self._strangers = Buckets(rate=10, burst=300)  # over all addresses
        self._asking = 0

    def known(self, name: str) -> bool | None:
        """Whether Kimi accepts the token with this name; None if that is not known."""
        now = self._clock()
        if 0 <= now - self._live.get(name, -math.inf) < REMEMBERED:
            return True
        if 0 <= now - self._dead.get(name, -math.inf) < REMEMBERED:
            return False
        return None

    def learn(self, name: str, live: bool) -> None:
        """Note what a call has shown."""
        self._live.pop(name, None)
        self._dead.pop(name, None)
        (self._live if live else self._dead)[name] = self._clock()

    def admit(self, client: str) -> None:
        """Count a question about an unknown token from this address. Raises RateLimited."""
        if wait := self._new.take(client, self._clock()):
            raise RateLimited.passing("Too many unknown tokens from this address.", wait)

    async def of(self, token: Token, client: str, provider: Provider | None = None) -> bool:
        """Whether Kimi accepts a token that can be one; or the `provider`, of which it is. `client` is the
        address that asks. Raises RateLimited and UpstreamFailure."""
        of_vendor = "" if provider is None else f"{provider.name} {token.base} "
        name, ask = name_of(of_vendor + token.secret), self._ask if provider is None else provider.live
        known = self.known(name)
        if known is not None:
            return known
        self.admit(client)
        wait = 1.0 if self._asking >= ASKING else self._strangers.take("", self._clock())
        if wait:
            raise RateLimited.passing("Too many token checks at present.", wait)
        self._asking += 1
        try:
            live = await ask(token)
        finally:
            self._asking -= 1
        self.learn(name, live)
        return live
