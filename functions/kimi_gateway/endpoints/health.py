"""Liveness and readiness."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import field

from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.provider import Upstream

PROBED = 1.0  # seconds for which a probe of the store is reused


@dataclass(slots=True)
class Health:
    store: Store
    upstream: Callable[[], Upstream]
    problems: Callable[[], list[str]]
    clock: Callable[[], float]
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _probed: tuple[float, str] = (-math.inf, "")  # time, and the store's fault

    async def ping(self, request: Request) -> Response:
        return Response(200, [("content-type", "text/plain; charset=utf-8")], b"pong")

    async def health(self, request: Request) -> Response:
        """Whether requests can be served: `unready` (503) if the store or the tokens cannot be read,
        `degraded` if earlier requests found a failing upstream or failing tokens. Never calls the
        upstream."""
        if problems := await self.faults():
            return answer({"status": "unready", "problems": problems}, 503)
        upstream = self.upstream()
        troubles = await upstream.tokens.troubles()
        status = "degraded" if troubles else "ok"
        return answer({"status": status, "provider": upstream.provider.name, "problems": troubles})

    async def faults(self) -> list[str]:
        """Why no request can be served."""
        problems = self.problems()
        if trouble := await self._probe():
            problems.append(f"store: {trouble}")
        return problems

    async def _probe(self) -> str:
        """The store's fault, empty if there is none. The store is asked once a second at most."""
        async with self._probing:
            now = self.clock()
            if not 0 <= now - self._probed[0] < PROBED:
                trouble = ""
                try:
                    await self.store.find_key("")
                except StoreDown as exc:
                    trouble = str(exc) or "down"
                self._probed = (now, trouble)
            return self._probed[1]
