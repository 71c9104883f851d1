"""A line in the journal now and then about where a job is, with its fields.

Only rank 0's node prints progress; every node's journal should tell how far a job has come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from llamaforge.spec.ranks import Progress
from llamaforge.systemd import journal
from llamaforge.worker.status import of_progress

EVERY = 10.0
"""Seconds between two lines; the first one and the last one come in any case."""

log = logging.getLogger("llamaforge.worker")


class ProgressLog:
    """Decides which progress is worth a line.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: Progress | None = None
        self._last: Progress | None = None
        self._at = float("-inf")

    def see(self, now: Progress | None) -> None:
        """Told where the job is, as often as one likes; None while there is no job."""
        last, self._last = self._last, now
        if last is not None and (now is None or _job(now) != _job(last)):
            self._tell(last)
            self._told, self._at = None, float("-inf")
        if now is not None and self._clock() - self._at >= EVERY:
            self._tell(now)

    def _tell(self, word: Progress) -> None:
        if self._told is not None and self._told.step == word.step:
            return
        self._told, self._at = word, self._clock()
        fields = journal.fields(
            job=word.job, generation=word.generation, rank=word.rank, step=word.step
        )
        log.info("%s", of_progress(word), extra=fields)


def _job(word: Progress) -> tuple[str, int]:
    return word.job, word.generation
