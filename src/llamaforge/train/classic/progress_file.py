"""A peer's progress, left in a file for its worker, which has no pipe to it through torchrun."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from llamaforge.spec.ranks import Progress
from llamaforge.train.report import Silent

EVERY = 0.5
"""Seconds between two writes."""


class ProgressFile(Silent):
    """The reporter of a peer.

    Args:
        path: the file; replaced as a whole, so that a reader never sees half of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = float("-inf")

    def progress(self, word: Progress) -> None:
        """Writes where the job is, now and then, and at the end."""
        now = time.monotonic()
        if now - self._written < EVERY and word.step < word.total_steps:
            return
        self._written = now
        aside = self._path.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(word))
        aside.replace(self._path)
