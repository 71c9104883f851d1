"""LF101: the folder in which the service starts is there, and the unit does not hide it.

Without it systemd ends the start with 200/CHDIR before any of our code runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at the unit's WorkingDirectory."""
    unit, folder = subject.unit, subject.unit.working_directory
    if not folder.startswith("/"):
        return
    status = machine.status(folder)
    if status is None:
        owner = shlex.quote(unit.user or "root")
        yield error(
            folder,
            f"WorkingDirectory={folder} of {unit.name} does not exist; it can't start (200/CHDIR)",
            f"sudo install -d -o {owner} {shlex.quote(folder)}",
            unit.systemctl("restart"),
        )
    elif status.kind != "directory":
        yield error(
            folder,
            f"WorkingDirectory={folder} of {unit.name} is a {status.kind}, not a folder",
            unit.systemctl("edit"),
        )


CHECK = Check(
    code="LF101",
    title="Working directory",
    sees="the unit's WorkingDirectory is missing or not a folder",
    fix="makes the folder for the service's user and restarts the service",
    look=look,
)
