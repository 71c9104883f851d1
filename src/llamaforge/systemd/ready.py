"""Says "ready" for a torchrun that an edited unit starts instead of our worker.

The unit is `Type=notify`, and torchrun knows nothing of that: systemd would wait, give up and
kill it. `packaging/python/llamaforge_ready.pth`, which Python reads at its start, calls this when
a service manager started `torch.distributed.run`.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence

from llamaforge.systemd.notify import Notify

_TORCHRUN = "torch.distributed.run"


def announce(environ: MutableMapping[str, str], command: Sequence[str]) -> bool:
    """Reports this process as ready, and takes it from the watchdog, which torchrun doesn't feed.

    Children of the service say nothing: systemd names its own process in SYSTEMD_EXEC_PID. Nor
    does a program that is not torchrun and speaks for itself, whatever its arguments are.

    Args:
        environ: of this process.
        command: its command line, `sys.orig_argv`.

    Returns:
        Whether something was said.
    """
    if not is_torchrun(command):
        return False
    if environ.get("SYSTEMD_EXEC_PID", str(os.getpid())) != str(os.getpid()):
        return False
    manager = Notify.from_environment(environ)
    manager.unwatched()
    manager.status("torchrun runs; it says in the journal what it waits for")
    manager.ready()
    return manager.listens


def is_torchrun(command: Sequence[str]) -> bool:
    """Whether Python was told to run torchrun: `python -u -m torch.distributed.run`, or its script.

    The words after that are the program's own.
    """
    words = iter(command[1:])
    for word in words:
        if not word.startswith("-"):
            return word.rpartition("/")[2] == "torchrun"
        if word == "-":
            return False
        if word == "--check-hash-based-pycs":
            next(words, "")
        flags = "" if word.startswith("--") else word[1:]
        place = min((flags.index(flag) for flag in "cmWX" if flag in flags), default=None)
        if place is None:
            continue
        value = flags[place + 1 :] or next(words, "")  # python's options that take one
        if flags[place] in "cm":
            return flags[place] == "m" and value == _TORCHRUN
    return False
