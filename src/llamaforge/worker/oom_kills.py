"""Whether the kernel killed a rank for want of memory: SIGKILL alone does not say who sent it.

The kernel counts such kills in the control group that the worker shares with its ranks. Reading
the count needs no privilege, unlike the kernel's log.
"""

from __future__ import annotations

from pathlib import Path

from llamaforge.spec import oom

_UNLIMITED = 1 << 60
"""Bytes; version 1 of control groups writes a number like this where there is no limit."""


class OomKills:
    """Kills since this object was made.

    Args:
        root: of the file system; tests give another one.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._group = _group(root)
        self._before = self._count()

    def why(self) -> str:
        """`it reached MemoryMax=200M of its service`; "" when nothing was killed."""
        if self._count() <= self._before:
            return ""
        limit = self._limit()
        if limit is None:
            return "the machine, or the slice of its service, has no more memory"
        return f"its service reached MemoryMax={_size(limit)}"

    def _count(self) -> int:
        text = _text(self._group / "memory.events") or _text(self._group / "memory.oom_control")
        return oom.kills(text) or 0

    def _limit(self) -> int | None:
        text = _text(self._group / "memory.max") or _text(self._group / "memory.limit_in_bytes")
        limit = int(text) if text.strip().isdecimal() else _UNLIMITED
        return limit if limit < _UNLIMITED else None


def _group(root: Path) -> Path:
    """This process's control group that counts memory (cgroups(7)): version 1's, else 2's."""
    tree = root / "sys/fs/cgroup"
    unified = tree / "nowhere"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return tree / "memory" / path.lstrip("/")
        if not controllers:
            unified = tree / path.lstrip("/")
    return unified


def _text(path: Path) -> str:
    """What a file says; "" where there is none, which is so on kernels without the controller."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _size(count: int) -> str:
    """Bytes as systemd writes them."""
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return str(count)
