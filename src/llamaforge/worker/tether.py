"""Child processes that can't outlive their parent, whatever kills it (Linux PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def tether() -> Callable[[], None]:
    """What to pass as `preexec_fn`: the kernel kills the child when the calling thread ends.

    Start such children from a thread that lives as long as the process (the main thread or the
    one with the event loop). Nothing is imported or looked up after the fork.
    """
    parent = os.getpid()

    def after_fork() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return after_fork
