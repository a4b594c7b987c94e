"""Gives the memory of large bodies and events back to the system.

By default glibc learns from each large block that is freed, and then takes blocks of that size from its heap,
which shrinks only at its end. After a few events of 8 MiB a process stays twice as large. With fixed
thresholds such blocks are mapped for themselves (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). Threads
that start later share one heap (M_ARENA_MAX): heaps of threads keep their ends, whatever is trimmed.
"""

from __future__ import annotations

from contextlib import suppress

LARGE = 4 * 2**20  # bytes; smaller ones would cost a request of 1 MB more page faults
SETTLED = 1.0  # seconds after the start, which must not wait for this
_TRIM, _MMAP, _ARENAS = -1, -3, -8


def give_back_large_blocks() -> None:
    """Set the thresholds where the C library has them; elsewhere do nothing."""
    with suppress(ImportError, AttributeError, OSError, TypeError):  # musl, macOS, Windows
        import ctypes  # loads slowly

        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP, LARGE)
        mallopt(_TRIM, LARGE)
        mallopt(_ARENAS, 1)


def trim() -> None:
    """Give free blocks of the C library's heap back to the system, where it can."""
    with suppress(ImportError, AttributeError, OSError, TypeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
