"""LF105: the service's user may write to its folders for state and cache, and read its model.

The kernel is asked, as that user: modes, groups and access lists all count.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Hung, Machine, Status
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Tries to write, or read, as the service's user."""
    user = subject.unit.user
    for path in subject.state_dirs + subject.cache_dirs:
        yield from _try(machine, subject, path, "-w", "write to")
    if user:
        for path in (subject.get("HF_HOME"), subject.config):
            if path:
                yield from _try(machine, subject, path, "-r", "read")


def _try(machine: Machine, subject: Subject, path: str, test: str, verb: str) -> Iterator[Finding]:
    try:
        status = machine.status(path)
    except Hung:
        return  # LF110 says so
    user = subject.unit.user or machine.user_name()
    if status is None:
        return  # LF102 says so
    command = ["test", test, path, "-a", "-x", path] if _folder(status) else ["test", test, path]
    if machine.run_as(subject.unit.user, *command).code == 0:
        return
    seen = (
        f"the user {user} can't {verb} {path}: "
        f"it is {status.user}:{status.group} with mode {status.mode:04o}"
    )
    yield error(path, seen, *_mend(subject, path, status, test))


def _folder(status: Status) -> bool:
    return status.kind == "directory"


def _mend(subject: Subject, path: str, status: Status, test: str) -> tuple[str, ...]:
    where, owner = shlex.quote(path), subject.unit.user or "$(id -un)"
    if test == "-w":
        group = subject.unit["Group"] or ""
        return (
            f"sudo chown -R {owner}:{group} {where}",
            f"sudo chmod u+rwx {where}",
            subject.unit.systemctl("restart"),
        )
    access = "rX" if _folder(status) else "r"
    recursive = "-R " if _folder(status) else ""
    return (f"sudo chmod {recursive}a+{access} {where}",)


CHECK = Check(
    code="LF105",
    title="Ownership",
    sees="the service's user can't write to its state or cache, or can't read HF_HOME or the "
    "settings file",
    fix="gives the folder to the service's user",
    look=look,
)
