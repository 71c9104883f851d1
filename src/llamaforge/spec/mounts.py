"""Mounted file systems, by the kernel's table and fstab(5), without touching any of them."""

from __future__ import annotations

import re
from typing import NamedTuple

TABLE = "/proc/self/mountinfo"
"""Where the kernel shows it."""
NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre"),
    *("9p", "afs", "beegfs"),
)
"""Types of file systems that another machine serves, besides those in FUSE."""


class Mount(NamedTuple):
    """A mounted file system, or one that should be."""

    point: str
    kind: str
    source: str


def read(table: str) -> list[Mount]:
    """Reads the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = []
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        if dash and len(before.split()) >= 5 and len(after.split()) >= 2:
            kind, source = after.split()[:2]
            found.append(Mount(unescaped(before.split()[4]), kind, unescaped(source)))
    return found


def holding(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that a path is on, the last one where several stand on one another.

    Args:
        path: an absolute path; anything else is on none.
        mounts: in the kernel's order.
    """
    best: Mount | None = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def is_remote(kind: str) -> bool:
    """Whether a file system's type is served by something that can be gone."""
    return kind in NETWORK or kind in ("fuse", "fuseblk") or kind.startswith("fuse.")


def fstab(text: str) -> list[Mount]:
    """The network file systems of /etc/fstab that are mounted at boot."""
    rows = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [
        Mount(unescaped(row[1]), row[2], unescaped(row[0]))
        for row in rows
        if len(row) >= 4 and is_remote(row[2]) and "noauto" not in row[3].split(",")
    ]


def unescaped(text: str) -> str:
    r"""Blanks and such stand as \040 in the kernel's tables, and in fstab(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
