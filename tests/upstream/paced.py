"""Answers whose pace the test decides, and that tell how far they got."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upstream.kimi import chat_events
from upstream.steps import DONE, Kimi, Part, Reply, Sse, Step, frame

if TYPE_CHECKING:
    from upstream.server import Request


@dataclass
class Gated:
    """The inner answer, each of its events only when it is let go. `sent`: events written."""

    inner: Step = Kimi()
    sent: int = 0
    _open: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def let(self, events: int = 1) -> None:
        self._open.release(events)

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        # Without a length, which the server would find by asking for all parts at once.
        return replace(inner, parts=self._parts(inner.parts), chunked=not inner.raw)

    def _parts(self, parts: Iterable[Part]) -> Iterator[Part]:
        for part in parts:
            while not self._open.acquire(blocking=False):
                yield 0.002
            yield part
            self.sent += 1


@dataclass
class Flood:
    """Content as fast as it is taken, `size` bytes of it at most. `written`: what the socket took so far."""

    size: int
    piece: int = 32 * 1024
    written: int = 0

    def reply(self, request: Request) -> Reply:
        return replace(Sse([]).reply(request), parts=self._parts())

    def _parts(self) -> Iterator[Part]:
        role, content, last = chat_events("x" * self.piece, pieces=1)
        yield frame(role)
        for _ in range(self.size // self.piece):
            yield frame(content)
            self.written += self.piece
        yield frame(last) + DONE
