"""LF110: network file systems answer, and those of /etc/fstab are mounted.

A file server that is gone makes every program that touches the mount wait without an end. Each is
tried by a child process that is killed when it does not answer.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, warning
from llamaforge.doctor.machine import Hung, Machine
from llamaforge.doctor.subject import Subject
from llamaforge.spec.mounts import TABLE, Mount, fstab, is_remote, read


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks each network mount for its free space."""
    mounted = read(machine.read(TABLE) or "")
    for mount in mounted:
        if is_remote(mount.kind):
            yield from _answers(machine, subject, mount)
    points = {mount.point for mount in mounted}
    for mount in fstab(machine.read("/etc/fstab") or ""):
        if mount.point not in points:
            named = _needed_by(subject, mount.point)
            seen = f"{mount.point} ({mount.kind} from {mount.source}) is in /etc/fstab, not mounted"
            report = error if named else warning
            yield report(mount.point, seen + named, f"sudo mount {shlex.quote(mount.point)}")


def _answers(machine: Machine, subject: Subject, mount: Mount) -> Iterator[Finding]:
    try:
        machine.space(mount.point, seconds=3.0)
    except Hung:
        named = _needed_by(subject, mount.point)
        seen = f"the {mount.kind} mount {mount.point} (from {mount.source}) does not answer{named}"
        where = shlex.quote(mount.point)
        in_fstab = mount.point in {m.point for m in fstab(machine.read("/etc/fstab") or "")}
        again = [f"sudo mount {where}"] if in_fstab else []
        report = error if named else warning
        yield report(
            mount.point, seen, f"sudo umount --force --lazy --no-canonicalize {where}", *again
        )


def _needed_by(subject: Subject, point: str) -> str:
    for path, named_by in subject.paths.items():
        if path == point or path.startswith(point.rstrip("/") + "/"):
            return f"; {named_by} ({path}) is on it"
    return ""


CHECK = Check(
    code="LF110",
    title="Network mounts",
    sees="a mount of NFS, CIFS, FUSE or the like does not answer, or one of /etc/fstab is missing",
    fix="unmounts it by force, and mounts it again where /etc/fstab has it",
    look=look,
)
