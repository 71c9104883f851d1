"""LF107: the service's user may run the program, all the way down from the root folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Tries as the service's user: the program of ExecStart, and its Python."""
    unit = subject.unit
    for program in dict.fromkeys([*unit.argv[:1], unit.python]):
        if not program.startswith("/"):
            continue
        if machine.status(program) is None:
            yield error(
                program,
                f"ExecStart of {unit.name} names {program}, which does not exist",
                "sudo ./install.sh  # in a checkout of LlamaForge",
            )
        elif machine.run_as(unit.user, "test", "-x", program).code:
            closed, deeper = _closed(machine, subject, program)
            recursive = "-R " if deeper else ""
            yield error(
                closed,
                f"the user {unit.user} may not run {program}: {closed} is closed to it",
                f"sudo chmod {recursive}a+rX {shlex.quote(closed)}",
                unit.systemctl("restart"),
            )


def _closed(machine: Machine, subject: Subject, program: str) -> tuple[str, bool]:
    """The topmost path that stops the user, and whether there are more below it."""
    target = machine.run("readlink", "-f", program).out.strip() or program
    for path in (program, target):
        folders = [str(p) for p in reversed([PurePosixPath(path), *PurePosixPath(path).parents])]
        for n, folder in enumerate(folders):
            if machine.run_as(subject.unit.user, "test", "-x", folder).code:
                below = (machine.status(name) for name in folders[n + 1 :])
                return folder, any(status and not status.mode & 0o001 for status in below)
    return program, False


CHECK = Check(
    code="LF107",
    title="Program",
    sees="the program of ExecStart is missing, or the service's user may not run it",
    fix="opens the folder that is closed",
    look=look,
)
