"""What the tests of the token pool share: a clock that is set, a record that can be down, calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Call, Token
from kimi_gateway.providers.tokens.affinity import beginning, ranked
from kimi_gateway.providers.tokens.outages import LocalOutageLog
from kimi_gateway.providers.tokens.pool import Pool, TokenLease

NOW = 1_800_000_000
MODEL = "kimi-k3"
A, B, C = tokens = tuple(Token.of(f"sk-upstream-{name}") for name in "abc")


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ShakyRecord(LocalOutageLog):
    """Down, or hanging, when it is told to be; counts how often it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.reads = 0
        self.hanging: asyncio.Event | None = None

    async def _answer(self) -> None:
        if self.hanging is not None:
            await self.hanging.wait()
        if self.down:
            raise OSError("the record is down")

    async def publish(self, token: str, model: str, cause: str, until: int) -> None:
        await self._answer()
        await super().publish(token, model, cause, until)

    async def retract(self, token: str, model: str) -> None:
        await self._answer()
        await super().retract(token, model)

    async def published(self) -> list[tuple[str, str, str, int]]:
        self.reads += 1
        seen = await super().published()
        await self._answer()
        return seen

    async def claim(self, token: str, now: int, until: int) -> bool:
        await self._answer()
        return await super().claim(token, now, until)


class Scene:
    """A pool with all that it rests on."""

    def __init__(
        self, *held: Token, places: int = 0, record: LocalOutageLog | None = None, clock: Clock | None = None
    ) -> None:
        self.held = held
        self.clock = clock or Clock()
        self.record = record or LocalOutageLog()
        self.pool = Pool(lambda: self.held, self.record, self.clock, places)

    async def lease(self, about: str = "", tried: tuple[Token, ...] = (), model: str = MODEL) -> TokenLease:
        return await self.pool.lease(call(about, model), {token.id for token in tried})

    async def fails(self, cause: str, after: float | None = None, tried: tuple[Token, ...] = (),
                    model: str = MODEL, about: str = "") -> Token:  # fmt: skip
        """One request that fails; the token that it was asked of."""
        lease = await self.lease(about, tried, model)
        lease.end(failure(cause, after))
        return lease.token

    async def works(self, about: str = "", tried: tuple[Token, ...] = (), model: str = MODEL) -> Token:
        lease = await self.lease(about, tried, model)
        lease.answered()
        lease.end()
        return lease.token

    async def serving(self, model: str = MODEL, asked: int = 40) -> set[Token]:
        """The tokens that conversations get by now, tried without telling the pool anything."""
        got = set()
        for number in range(asked):
            lease = await self.lease(f"conversation {number}", model=model)
            got.add(lease.token)
            lease.end()
        return got


def failure(cause: str, after: float | None = None) -> UpstreamFailure:
    return UpstreamFailure(cause, retry_after=after)  # type: ignore[arg-type]


def call(about: str = "", model: str = MODEL) -> Call:
    body = {"model": model, "messages": [{"role": "user", "content": about}]}
    return Call(Model(model, model, 1000, 1000, 1000), body, b"")


def preferring(token: Token, among: tuple[Token, ...] = tokens) -> str:
    """A conversation that belongs to this token."""
    for number in range(1000):
        if ranked(beginning(call(str(number)).body), among)[0] == token:
            return str(number)
    raise AssertionError("no conversation of a thousand prefers this token")


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run
