"""What the kernel says of a process: whether it runs, sleeps, is stopped or dead (proc(5))."""

from __future__ import annotations

from pathlib import Path

STOPPED = frozenset("TtZX")
"""States in which a process does nothing, whatever happens: stopped, traced, dead."""


def process_state(pid: int) -> str:
    """The state's letter; `X` (dead) for a process that isn't there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "X"
    return stat.rpartition(")")[2].split()[0]  # the name before it may hold anything


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; without one it may end of it."""
    for line in _status(pid):
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def waits_in(pid: int) -> str:
    """The function of the kernel in which a process sleeps; empty where that isn't told."""
    try:
        found = Path(f"/proc/{pid}/wchan").read_text().strip()
    except OSError:
        return ""
    return "" if found == "0" else found


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return []
