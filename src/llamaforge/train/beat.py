"""The pulse of this process: where it is, in a mapped file that its worker can read at any time.

    beat.keep(folder / "rank-0.beat")
    beat.now(Phase.SLICE)

One per process, as a log is: what may hang is deep inside, and must not be handed an object for
it. Without a file it goes to memory and nobody reads it. A call costs less than a microsecond.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns

from llamaforge.spec.beat import BYTES, Phase

_STEP, _PHASE, _WAITS, _AT = range(4)
_WORD = "q"


class _Pulse:
    """Where the words go: to memory, until there is a file."""

    __slots__ = ("words",)

    def __init__(self) -> None:
        self.words = memoryview(bytearray(BYTES)).cast(_WORD)


_pulse = _Pulse()


def keep(path: Path) -> None:
    """Writes to this file from now on; it is made.

    Raises:
        OSError: it can't be.
    """
    with path.open("wb+") as file:
        file.truncate(BYTES)
        mapped = mmap.mmap(file.fileno(), BYTES)
    words = memoryview(mapped).cast(_WORD)
    words[:] = _pulse.words
    _pulse.words = words


def now(phase: Phase) -> None:
    """This begins now, and waits for no other rank."""
    words = _pulse.words
    words[_PHASE] = phase
    words[_WAITS] = 0
    words[_AT] = monotonic_ns()


def committed(step: int) -> None:
    """So many steps are committed."""
    _pulse.words[_STEP] = step


def doing() -> Phase:
    """What was told last."""
    return Phase(_pulse.words[_PHASE])


@contextmanager
def waiting() -> Iterator[None]:
    """For a time in which this rank waits for others, inside whatever it does."""
    words = _pulse.words
    words[_WAITS] = 1
    words[_AT] = monotonic_ns()
    try:
        yield
    finally:
        words[_WAITS] = 0
        words[_AT] = monotonic_ns()
