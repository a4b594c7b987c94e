"""Known outages of callers' own tokens: in the memory of this process only, and bounded, because callers
without a key must not fill the record that processes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kimi_gateway.providers.tokens.health import Key, TokenHealth
from kimi_gateway.providers.tokens.outages import PROBE_EVERY, LocalOutageLog, Outage

MOST = 10_000  # outages; the one that was noted first is forgotten


class LocalHealth(TokenHealth):
    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(LocalOutageLog(), clock)

    def put(self, outage: Outage) -> bool:
        new = super().put(outage)
        while len(self._outages) > MOST:
            del self._outages[next(iter(self._outages))]
        return new

    async def refresh(self) -> None:
        """No other process knows anything."""

    async def claim(self, outage: Outage) -> bool:
        key = outage.token, outage.model
        self._outages[key] = replace(outage, until=int(self._clock()) + PROBE_EVERY)
        return True

    def _tell(self, key: Key) -> None:
        """Nothing is shared."""
