"""A server of a test's own in a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self


class LoopThread:
    """`with` waits until `_run` has called `_ready.set()`; its end sets `_stop` and waits for `_run`."""

    def __init__(self, name: str) -> None:
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name)

    def _work(self) -> None:
        try:
            asyncio.run(self._begin())
        except BaseException as exc:
            self._failure = exc
        finally:
            self._ready.set()  # also if it could not start

    async def _begin(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._run()

    async def _run(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._failure is None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(100)
        assert not self._thread.is_alive(), f"{self._thread.name} does not end"
        if self._failure is not None and kind is None:
            raise self._failure
