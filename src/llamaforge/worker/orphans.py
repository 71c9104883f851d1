"""Children that a job has left behind: found, because the worker adopts them, and ended.

A rank's process group is killed at its end. What has left that group (a daemon, a data loader that
called setsid) would live on under process 1, out of sight, and might hold a GPU's memory. As a
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) the worker becomes the parent of such processes; when
no job runs, nothing below it has a reason to be there.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
log = logging.getLogger("llamaforge.worker")


def adopt() -> None:
    """From now on, descendants whose parents end become this process's children."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Orphans:
    """Ends what is left, look by look; never waits for a process that can't end yet."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def end(self) -> int:
        """Kills every child, and reaps those that have ended. To be called when no job runs.

        Children of children become ours when their parents end, so look again until none is left.

        Returns:
            How many there were.
        """
        left = children()
        for pid in left:
            if pid not in self._told:
                log.warning("a job has left process %d (%s): ending it", pid, _name(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._told = set(left)
        return len(left)


def children() -> list[int]:
    """Process ids of this process's children, of whichever thread."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"
