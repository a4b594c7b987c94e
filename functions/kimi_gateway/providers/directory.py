"""What the upstream says outside of chats: its live models, token counts, balances, whether a token lives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import ModelNotFound
from kimi_gateway.observe import emit
from kimi_gateway.providers.failures import OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.provider import Provider, Token, Upstream

T = TypeVar("T")
FRESH = 600.0  # seconds that a model list is good for
ASKED_ANEW = 60.0  # seconds before an unknown name may have it fetched again


class Directory:
    def __init__(
        self, upstream: Callable[[], Upstream], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._monotonic = monotonic
        self._listed: dict[str, dict[str, Any]] = {}
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self.last_balance: dict[str, float] | None = None  # as `balance` found it

    @property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The upstream's list by id as it was last known; empty before it was asked."""
        return self._listed

    def fresh(self, age: float = FRESH) -> bool:
        """Whether the upstream was asked for its list in the last `age` seconds."""
        return self._asked_at is not None and self._monotonic() - self._asked_at < age

    async def resolve(self, name: str, catalog: Catalog, may_ask: Callable[[], Awaitable[bool]]) -> Model:
        """The catalog's row, else a neutral one for a live id. The upstream is asked for a name that neither
        knows, once a minute and where it `may_ask`. Raises ModelNotFound, and what `may_ask` raises."""
        try:
            return catalog.resolve(name)
        except ModelNotFound:
            if self.fresh(ASKED_ANEW) or not await may_ask():
                return catalog.resolve(name, self._listed)
            return catalog.resolve(name, await self.live(ASKED_ANEW))

    async def live(self, fresh: float = FRESH) -> dict[str, dict[str, Any]]:
        """The upstream's list by id, `fresh` seconds old at most; an older one while the upstream is down."""
        async with self._asking:
            if not self.fresh(fresh):
                self._asked_at = self._monotonic()
                try:
                    entries = await self._ask(lambda provider, token: provider.models(token))
                    self._listed = {entry["id"]: entry for entry in entries}
                except UpstreamFailure as failure:
                    emit("models_unknown", logging.WARNING, cause=failure.cause, detail=failure.detail)
            return self._listed

    async def count(self, model: Model, messages: list[Any], estimate: int) -> int:
        """Input tokens by the upstream's count, else the given estimate."""
        try:
            return await self.estimate(model, messages)
        except UpstreamFailure:
            return estimate

    async def estimate(self, model: Model, messages: list[Any]) -> int:
        return await self._ask(lambda provider, token: provider.estimate(token, model, messages))

    async def balance(self) -> dict[str, float]:
        """Summed over the tokens that live: limits and money are per account, and each token is one's."""
        upstream, total = self._upstream(), dict[str, float]()
        dead: UpstreamFailure | None = None
        for token in upstream.tokens.all():
            try:
                balance = await upstream.provider.balance(token)
            except UpstreamFailure as failure:
                if failure.cause != "authentication":
                    raise
                dead = failure
                continue
            for name, value in balance.items():
                total[name] = round(total.get(name, 0) + value, 5)
        if dead is not None and not total:
            raise dead
        self.last_balance = total
        return total

    async def check(self) -> None:
        """Ask for every token's balance, so that the pool knows the dead and the broke before a client."""
        upstream = self._upstream()
        await asyncio.gather(*(self._check(upstream, token) for token in upstream.tokens.all()))

    async def _check(self, upstream: Upstream, token: Token) -> None:
        try:
            balance = await upstream.provider.balance(token)
        except UpstreamFailure as failure:
            if failure.cause == "authentication":
                upstream.tokens.learn(token, "", failure)
        else:
            if balance.get("available_balance", 1) <= 0:
                upstream.tokens.learn(token, "", UpstreamFailure("quota", "the balance is empty"))

    async def is_live(self, token: Token) -> bool:
        return await self._upstream().provider.live(token)

    async def _ask(self, question: Callable[[Provider, Token], Awaitable[T]]) -> T:
        """Of each token in turn, until one is answered."""
        upstream, tried = self._upstream(), set[str]()
        while True:
            lease = await upstream.tokens.lease(None, tried)
            tried.add(lease.token.id)
            failure: UpstreamFailure | None = None
            try:
                answer = await question(upstream.provider, lease.token)
                lease.answered()
                return answer
            except UpstreamFailure as exc:
                failure = exc
            finally:
                lease.end(failure)
            if failure.cause not in OTHER_TOKEN or not await upstream.tokens.another(tried, ""):
                raise failure
