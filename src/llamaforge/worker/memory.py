"""Keeps an idle worker small: memory that was needed once goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import platform

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_BYTES = 128 << 10

_ON_GLIBC = platform.libc_ver()[0] == "glibc"


def limit_memory() -> None:
    """Makes big buffers leave with their last use, and threads share one heap (mallopt(3)).

    To be called before there are threads; does nothing with another C library than glibc.
    """
    if _ON_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def trim_memory() -> None:
    """Gives back what importing, or a job, has left unused."""
    gc.collect()
    if _ON_GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
