"""Growing pauses after crashes, where systemd itself can't (RestartSteps= needs systemd 254).

The times at which work began that had no orderly end are kept in the unit's runtime folder, which
outlives restarts and not the machine. A service that has crashed often says so and waits before it
works; systemd has its READY meanwhile, so nothing is held up, and no crash is the last one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

WINDOW = 600.0
"""Seconds: an older crash is forgotten, and so are all after a calm time as long."""
FREE = 2
"""Crashes that cost no pause."""
FIRST, LONGEST = 1.0, 30.0
"""Seconds of pause: doubled from crash to crash."""
REMEMBERED = 64
LARGEST = 1 << 16
"""Bytes that are read of the file."""


def pause(crashes: int) -> float:
    """Seconds between a start and the next one after so many crashes in the window."""
    if crashes <= FREE:
        return 0.0
    return min(LONGEST, FIRST * 2.0 ** min(crashes - FREE - 1, 30))


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Restarts:
    """The starts of this service that were not ended in order.

    Args:
        folder: the unit's runtime folder; None: nothing is kept, and there is no pause.
        clock: seconds since the machine's start.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float] = _since_boot) -> None:
        self._path = folder / "starts.json" if folder else None
        self._clock = clock
        self.crashes = 0
        """Crashes in the window, as of the last `begin`."""

    def begin(self) -> float:
        """Notes this start. Returns the seconds to wait before working."""
        if self._path is None:
            return 0.0
        now = self._clock()
        before = [start for start in self._read() if abs(now - start) < WINDOW]
        self.crashes = len(before)
        worked = max(0.0, now - before[-1]) if before else WINDOW
        wait = max(0.0, pause(self.crashes) - worked)
        self._write([*before, now + wait][-REMEMBERED:])
        return wait

    def forget(self) -> None:
        """An orderly end, or a long calm: earlier crashes count no more."""
        if self._path is not None:
            _remove(self._path)

    def _read(self) -> list[float]:
        assert self._path is not None
        try:
            # Ranks write here, too: a FIFO in its place must not hold up the start.
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                return msgspec.json.decode(file.read(LARGEST), type=list[float])
        except (OSError, msgspec.MsgspecError):  # none yet, or torn by the crash
            return []

    def _write(self, starts: list[float]) -> None:
        assert self._path is not None
        aside = self._path.with_suffix(".new")
        try:
            aside.write_bytes(msgspec.json.encode(starts))
            aside.replace(self._path)
        except OSError:  # a full /run: pauses are a courtesy, not worth an end
            _remove(aside)


def _remove(path: Path) -> None:
    """Removes a file where that can be done: ranks write here, too, and may have left a folder."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
