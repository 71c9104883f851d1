"""The process that takes a lab down when its owner can't: `python -m lab.janitor NAME PID START`.

It waits until the owner is gone, by SIGKILL as well, and then undoes the ledger. An owner who ended
its lab in order has closed the janitor's standard input before; then there is nothing left to do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.errors import LabError
from lab.ledger import Ledger, Process, forget_folder
from lab.teardown import take_down

_LAST_WORDS_S = 0.3


def watch(name: str, owner: Process) -> subprocess.Popen[bytes]:
    """Start a janitor for a lab; closing its standard input and waiting for it ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab.janitor", name, str(owner.pid), str(owner.start)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[1],
        env={"PATH": os.defpath},
        start_new_session=True,
    )


def wait_for_end(owner: Process) -> None:
    """Return once the owner has died or let go of our standard input."""
    try:
        descriptor = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return
    try:
        if owner.alive:
            select.select([descriptor, sys.stdin], [], [])
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Watch one lab to its end; 1 when something of it is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    name, pid, start = arguments
    owner = Process(int(pid), int(start))
    wait_for_end(owner)
    # A tool that the owner had just started may still be at work: mount(8), or nspawn's start.
    time.sleep(_LAST_WORDS_S)
    with contextlib.suppress(LabError):
        take_down(Ledger(name), owner)
        forget_folder()
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
