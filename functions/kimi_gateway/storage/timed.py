"""A store whose steps are timed for the metrics. It is used only while something counts."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kimi_gateway.observe import sinks

S = TypeVar("S")


class _Timed:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name.startswith("_") or not inspect.iscoroutinefunction(found):
            return found
        step = _timed(name, found)
        self.__dict__[name] = step  # the next time it is found at once
        return step


def _timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    async def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.monotonic()
        try:
            return await step(*arguments, **named)
        finally:
            taken = time.monotonic() - begun
            for sink in sinks:
                sink.step(name, taken)

    return timed


def timed(store: S) -> S:
    """The same store. Steps are named by their methods."""
    return cast(S, _Timed(store))
