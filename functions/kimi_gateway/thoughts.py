"""The gateway's hand on what is kept for later requests: not waited for long, and no reason to fail, but for
requests that name it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kimi_gateway.accounts.replay import Replay
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects.openai import reasoning
from kimi_gateway.dialects.openai.chunks import Chunk
from kimi_gateway.dialects.openai.reasoning import Lacking
from kimi_gateway.errors import Unavailable
from kimi_gateway.observe import emit, log

KEPT = 24 * 3600  # seconds
PATIENCE = 2.0  # seconds that a request or the end of an answer waits for the store


class Thoughts:
    """`keeps`: whether anything is kept at all; else nothing is found either."""

    def __init__(self, replay: Replay, clock: Callable[[], float], keeps: bool = True) -> None:
        self.keeps = keeps
        self._replay = replay
        self._clock = clock

    async def put_back(
        self, account: str, body: dict[str, Any], missing: Sequence[Lacking], model: Model
    ) -> int:
        """The reasoning that the messages lost, as far as it is known. The number of characters added."""
        known: dict[str, bytes] = {}
        if self.keeps and (names := reasoning.names(missing)):
            try:
                async with asyncio.timeout(PATIENCE):
                    known = await self._replay.recall(account, names, int(self._clock()))
            except (StoreDown, TimeoutError) as exc:
                emit("replay_down", logging.WARNING, step="recall", account=account, detail=str(exc))
        return reasoning.put_back(body, missing, known, model.replay)

    async def recall(self, account: str, names: Sequence[str]) -> dict[str, bytes]:
        """What a request names itself. Raises Unavailable: it cannot be told then whether it is kept."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._replay.recall(account, names, int(self._clock()))
        except (StoreDown, TimeoutError) as exc:
            cause = exc.cause if isinstance(exc, StoreDown) else StoreDown.cause
            raise Unavailable("Earlier answers cannot be read at present.", cause=cause) from exc

    async def keep(self, account: str, entries: Mapping[str, bytes]) -> None:
        if not self.keeps:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._replay.keep(account, entries, int(self._clock()) + KEPT)
        except (StoreDown, TimeoutError) as exc:
            emit("replay_down", logging.WARNING, step="keep", account=account, detail=str(exc))
        except Exception:  # the answer is whole without it, and is being charged
            log.exception("crash", extra={"fields": {"step": "keep", "account": account}})


async def seen_by(
    chunks: AsyncGenerator[list[Chunk], None], see: Sequence[Callable[[list[Chunk]], None]]
) -> AsyncGenerator[list[Chunk], None]:
    """The same chunks, each batch shown to all of `see` before it goes on."""
    async with aclosing(chunks):
        async for some in chunks:
            for each in see:
                each(some)
            yield some
