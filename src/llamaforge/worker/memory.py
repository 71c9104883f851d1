"""Gives memory that importing has used up back to the system: an idle worker should be small."""

from __future__ import annotations

import ctypes
import gc


def trim_memory() -> None:
    """Frees what is free; does nothing where the C library can't (musl)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
