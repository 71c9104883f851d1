"""What a rank's process tells of itself without a word: 32 bytes in a file that it keeps mapped.

A rank that hangs can't answer. So it writes down, before and after whatever may take long, what it
is about to do; its worker reads the file when it wants to know, also of a process that is stopped
or stuck in a library. `train.beat` writes, `worker.pulse` and `worker.stacks` read.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

BYTES = 32
"""Of the file: step, phase, whether it waits, time; 64-bit integers of this machine."""
_LAYOUT = struct.Struct("=4q")


class Phase(IntEnum):
    """What a rank does."""

    STARTS = 0
    MEETS = 1
    LOADS = 2
    PLANS = 3
    SLICE = 4
    AGREES = 5
    UPDATES = 6
    EVALUATES = 7
    SAVES = 8
    SAMPLES = 9
    FINISHES = 10

    @property
    def words(self) -> str:
        """For people; continues "rank 1"."""
        return _WORDS[self]


_WORDS = {
    Phase.STARTS: "loading libraries",
    Phase.MEETS: "meeting the other ranks",
    Phase.LOADS: "loading the model and the rows",
    Phase.PLANS: "reading the rows of a step",
    Phase.SLICE: "computing a slice",
    Phase.AGREES: "adding the gradients up",
    Phase.UPDATES: "updating the weights",
    Phase.EVALUATES: "evaluating",
    Phase.SAVES: "saving a checkpoint",
    Phase.SAMPLES: "writing a sample",
    Phase.FINISHES: "writing the results",
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    step: int
    """Committed steps."""
    phase: Phase
    waits: bool
    """Whether it waits for other ranks."""
    at: int
    """When that began: nanoseconds of this machine's monotonic clock."""


def pack(seen: Seen) -> bytes:
    """The file's content as it stands on disk."""
    return _LAYOUT.pack(seen.step, seen.phase, seen.waits, seen.at)


def parse(raw: bytes) -> Seen | None:
    """The inverse of `pack`; None for what can't be understood.

    The file is the rank's own: whatever stands in it is the word of a stranger.
    """
    try:
        step, phase, waits, at = _LAYOUT.unpack(raw)
        return Seen(step=step, phase=Phase(phase), waits=bool(waits), at=at)
    except (ValueError, struct.error):
        return None
