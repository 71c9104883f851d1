"""Which process listens on a TCP port of this machine, as far as /proc tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"
"""The kernel's number for a listening socket (include/net/tcp_states.h)."""


def who_listens(port: int, proc: Path = Path("/proc")) -> str:
    """Names the process that listens on `port`.

    Args:
        port: a TCP port.
        proc: where procfs is mounted.

    Returns:
        Such as `python3 (pid 4711)`; empty when it can't be told (another user's process).
    """
    inodes = set(_inodes(port, proc))
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if process.name.isdecimal() and _holds(process, wanted):
            return f"{_name(process)} (pid {process.name})"
    return ""


def _inodes(port: int, proc: Path) -> Iterator[str]:
    """Inodes of the sockets that listen on `port`."""
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holds(process: Path, sockets: set[str]) -> bool:
    """Whether a process has one of these sockets open; False where that can't be seen."""
    try:
        return any(str(handle.readlink()) in sockets for handle in (process / "fd").iterdir())
    except OSError:
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
