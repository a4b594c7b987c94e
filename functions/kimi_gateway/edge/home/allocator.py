"""Keeps the C library's memory where it can be given back to the system.

glibc gives each thread a heap of its own, whose end it keeps, whatever is trimmed. So threads that start
later share one (mallopt(3), M_ARENA_MAX). Its thresholds stay as they are: glibc learns the size of large
blocks and reuses them, which is much cheaper than new pages for each copy of a large event.
"""

from __future__ import annotations

from contextlib import suppress

SETTLED = 1.0  # seconds after the start, which must not wait for this
_ARENAS = -8


def share_heap() -> None:
    """Let threads that start later share one heap. Do nothing where the C library cannot do that."""
    with suppress(ImportError, AttributeError, OSError, TypeError):  # musl, macOS, Windows
        import ctypes  # loads slowly

        ctypes.CDLL(None).mallopt(_ARENAS, 1)


def trim() -> None:
    """Give free blocks of the heap back to the system, where that is possible."""
    with suppress(ImportError, AttributeError, OSError, TypeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
