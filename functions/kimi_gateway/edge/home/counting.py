"""Counts of a worker, with what is read of the running gateway when somebody looks."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_gateway.app import Running
from kimi_gateway.observe import sinks
from kimi_gateway.observe.metrics import Metrics, Snapshot, merged, since

if TYPE_CHECKING:
    from kimi_gateway.observe.shared import SharedCells


class Counting:
    """Counts from `start` to `stop`. One of several workers shares its numbers by files in the data folder.

    `more` are further values that are read with each look.
    """

    def __init__(self, data: Path) -> None:
        parent = multiprocessing.parent_process()
        self._shared: SharedCells | None = None
        if parent is not None and parent.pid is not None:
            from kimi_gateway.observe.shared import SharedCells, folder_of

            self._shared = SharedCells(folder_of(data, parent.pid))
        self.metrics = Metrics(self._shared)
        self._inherited = self.metrics.snapshot()  # of a killed worker whose file this one took over
        self.running: Running | None = None
        self.more: dict[str, dict[tuple[str, ...], float]] = {}

    @property
    def shared(self) -> bool:
        return self._shared is not None

    def start(self) -> None:
        """Before the gateway is started, whose store is then timed."""
        sinks.append(self.metrics)

    def stop(self) -> None:
        if self.metrics in sinks:
            sinks.remove(self.metrics)
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def refresh(self) -> None:
        """Read the gateway, for the other workers' looks too."""
        if self.running is not None:
            self.metrics.read(_read(self.running) | self.more)

    def own(self) -> Snapshot:
        """The counts of this worker alone."""
        self.refresh()
        return merged([since(self._inherited, self.metrics.snapshot())])

    def look(self) -> Snapshot:
        """All workers together. Counters are exact; what the others read of themselves is a second old."""
        self.refresh()
        others = () if self._shared is None else self._shared.others()
        return merged([self.metrics.snapshot(), *others])


def _read(running: Running) -> dict[str, dict[tuple[str, ...], float]]:
    vendors = running.registry.loaded
    pools = [running.pool, *(() if vendors is None else vendors.pools)]
    tokens = [(token, pool) for pool in pools for token in pool.all()]
    return {
        "requests_running": {(): len(running.gateway.turns)},
        "upstream_token_up": {(token.id,): float(pool.available(token)) for token, pool in tokens},
        "upstream_token_out": {
            (token.id, cause): 1.0 for token, pool in tokens for cause in pool.causes(token)
        },
        "upstream_token_requests": {(token.id,): float(pool.serving(token)) for token, pool in tokens},
        "upstream_balance": {} if (balance := _balance(running)) is None else {(): balance},
        "workers": {(): 1.0},
        "process_resident_bytes": {(): resident()},
        "process_cpu_seconds_total": {(): time.process_time()},
    }


def _balance(running: Running) -> float | None:
    """The balance at the last time that somebody asked for it."""
    found = running.endpoints.account.directory.last_balance
    return None if found is None else found.get("available_balance")


def resident() -> float:
    """Bytes of this process; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize()
    return 0.0
