"""The progress of a long command, on one line of stderr that is gone at the end. Only on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

T = TypeVar("T")
EVERY = 0.1  # seconds between two writes at least
Step = Callable[[int], None]


@contextmanager
def progress(what: str, stream: TextIO | None = None) -> Iterator[Step]:
    """Gives a function that takes the number reached so far; `what` names what is counted."""
    out = stream or sys.stderr
    if not out.isatty():
        yield lambda number: None
        return
    shown_at = -EVERY

    def show(number: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= EVERY:
            shown_at = now
            out.write(f"\r\x1b[K{number} {what}")
            out.flush()

    try:
        yield show
    finally:
        out.write("\r\x1b[K")
        out.flush()


def counted(items: Iterable[T], step: Step) -> Iterator[T]:
    """The same items; each is a step."""
    for number, item in enumerate(items, 1):
        step(number)
        yield item
