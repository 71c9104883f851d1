"""Whether the ranks of a job move on this node, from the words that they leave in their files.

What may take long without a word (saving a big model, reading rows of a new dataset) counts as
movement for a while, unless the process is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llamaforge.spec.beat import BYTES, Phase, Seen, parse
from llamaforge.worker import rank_files
from llamaforge.worker.process_state import STOPPED, process_state

PATIENCE: Mapping[Phase, float] = {
    Phase.PLANS: 300.0,
    Phase.LOADS: 900.0,
    Phase.SAVES: 600.0,
    Phase.SAMPLES: 120.0,
    Phase.FINISHES: 600.0,
}
"""Seconds for which a phase counts as movement although nothing is told meanwhile."""


def seen(folder: Path, rank: int) -> Seen | None:
    """What a rank wrote last; None where it has written nothing that can be understood."""
    return parse(rank_files.read(folder / f"rank-{rank}.beat", BYTES))


class Pulse:
    """The movement of one generation's ranks on this node.

    Args:
        folder: of the job on this node; ranks keep their files there.
        clock: this machine's monotonic clock, nanoseconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._folder, self._clock = folder, clock
        self._last: dict[int, Seen] = {}

    def moved(self, pids: Mapping[int, int]) -> bool:
        """Whether a rank has moved since this was asked last.

        Args:
            pids: process ids by rank.
        """
        moved = False
        for rank, pid in pids.items():
            now = seen(self._folder, rank)
            if now is None:
                continue
            moved = moved or now != self._last.get(rank) or self._takes_its_time(now, pid)
            self._last[rank] = now
        return moved

    def _takes_its_time(self, now: Seen, pid: int) -> bool:
        seconds = (self._clock() - now.at) / 1e9
        patient = not now.waits and seconds < PATIENCE.get(now.phase, 0.0)
        return patient and process_state(pid) not in STOPPED
