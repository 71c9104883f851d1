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
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
log = logging.getLogger("llamaforge.worker")


class _Own:
    """Children of the worker's own that run now."""

    count = 0


@contextlib.contextmanager
def own_child() -> Iterator[None]:
    """While the worker runs a child of its own, such as one that makes a key, nothing is ended."""
    _Own.count += 1
    try:
        yield
    finally:
        _Own.count -= 1


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
            How many there were; 0 while a child of the worker's own runs.
        """
        if _Own.count:
            return 0
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
