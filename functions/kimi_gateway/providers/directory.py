"""Calls to the upstream outside of chats: live models, token counts, balances, token checks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import NotFound
from kimi_gateway.observe import emit
from kimi_gateway.pivot import token_estimate
from kimi_gateway.providers.failures import OTHER_TOKEN, UpstreamFailure
from kimi_gateway.providers.provider import Balances, Estimates, Token, Tokens, Upstream

T = TypeVar("T")
FRESH = 600.0  # seconds for which a model list is reused
ASKED_ANEW = 60.0  # seconds before an unknown name may fetch the list again


class Directory:
    """The directory of one provider. `upstream` returns it with its current tokens, and raises Unavailable if
    they cannot be read. `prefix` stands before the ids of its models."""

    def __init__(
        self,
        upstream: Callable[[], Upstream],
        monotonic: Callable[[], float] = time.monotonic,
        prefix: str = "",
    ) -> None:
        self.upstream = upstream
        self._prefix = prefix
        self._monotonic = monotonic
        self._listed: dict[str, dict[str, Any]] = {}
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self.last_balance: dict[str, float] | None = None  # the last result of `balance`
        self.balances: dict[str, dict[str, float]] = {}  # the last known one of each token, by its id

    def with_upstream(self, upstream: Callable[[], Upstream]) -> Directory:
        """The same list as known now, with another upstream to ask."""
        other = Directory(upstream, self._monotonic)
        other._listed, other._asked_at = self._listed, self._asked_at
        return other

    @property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The last known list of the upstream, by id; empty before the first call."""
        return self._listed

    def fresh(self, age: float = FRESH) -> bool:
        """Whether the list was requested within the last `age` seconds."""
        return self._asked_at is not None and self._monotonic() - self._asked_at < age

    async def live(self, fresh: float = FRESH) -> dict[str, dict[str, Any]]:
        """The upstream's list by id, at most `fresh` seconds old; an older one while the upstream is down."""
        async with self._asking:
            if not self.fresh(fresh):
                self._asked_at = self._monotonic()
                try:
                    upstream = self.upstream()
                    entries = await self._ask(upstream, upstream.provider.models)
                    if self._prefix:
                        entries = [{**entry, "id": self._prefix + entry["id"]} for entry in entries]
                    self._listed = {entry["id"]: entry for entry in entries}
                except UpstreamFailure as failure:
                    emit("models_unknown", logging.WARNING, cause=failure.cause, detail=failure.detail)
            return self._listed

    async def count(self, model: Model, messages: list[Any], estimate: int) -> int:
        """Input tokens counted by the upstream; `estimate` if that fails."""
        try:
            return await self.estimate(model, messages)
        except UpstreamFailure:
            return estimate

    @property
    def counts(self) -> bool:
        """Whether the upstream counts tokens. Raises Unavailable."""
        return isinstance(self.upstream().provider, Estimates)

    async def estimate(self, model: Model, messages: list[Any]) -> int:
        """Input tokens counted by the upstream, or estimated if it does not count."""
        upstream = self.upstream()
        provider = upstream.provider
        if not isinstance(provider, Estimates):
            return token_estimate.of_messages(messages)
        return await self._ask(upstream, lambda token: provider.estimate(token, model, messages))

    async def balance(self) -> dict[str, float]:
        """The sum over all valid tokens, because each token belongs to an account of its own. Raises
        UpstreamFailure, and NotFound if the provider has no balances."""
        upstream, total = self.upstream(), dict[str, float]()
        provider = upstream.provider
        if not isinstance(provider, Balances):
            raise NotFound("The upstream has no balance that could be asked for.")
        dead: UpstreamFailure | None = None
        for token in upstream.tokens.all():
            try:
                balance = await provider.balance(token)
            except UpstreamFailure as failure:
                if failure.cause != "authentication":
                    raise
                dead = failure
                continue
            self.balances[token.id] = balance
            for name, value in balance.items():
                total[name] = round(total.get(name, 0) + value, 5)
        if dead is not None and not total:
            raise dead
        self.last_balance = total
        return total

    async def check(self) -> None:
        """Read every token's balance, so that the pool knows invalid and empty ones before a client meets
        them."""
        upstream = self.upstream()
        provider, tokens = upstream.provider, upstream.tokens
        if isinstance(provider, Balances):
            await asyncio.gather(*(self._check(provider, tokens, token) for token in tokens.all()))

    async def _check(self, provider: Balances, tokens: Tokens, token: Token) -> None:
        try:
            balance = await provider.balance(token)
        except UpstreamFailure as failure:
            if failure.cause == "authentication":
                tokens.learn(token, "", failure)
        else:
            self.balances[token.id] = balance
            if balance.get("available_balance", 1) <= 0:
                tokens.learn(token, "", UpstreamFailure("quota", "the balance is empty"))

    async def is_live(self, token: Token) -> bool:
        return await self.upstream().provider.live(token)

    async def _ask(self, upstream: Upstream, question: Callable[[Token], Awaitable[T]]) -> T:
        """Ask with one token after another, until one is answered."""
        tried = set[str]()
        while True:
            lease = await upstream.tokens.lease(None, tried)
            tried.add(lease.token.id)
            failure: UpstreamFailure | None = None
            try:
                answer = await question(lease.token)
                lease.answered()
                return answer
            except UpstreamFailure as exc:
                failure = exc
            finally:
                lease.end(failure)
            if failure.cause not in OTHER_TOKEN or not await upstream.tokens.another(tried, ""):
                raise failure
