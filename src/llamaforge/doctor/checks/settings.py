"""LF111: the worker's settings can be understood, and fit together."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.errors import SpecError
from llamaforge.spec.fleet import WorkerSettings, variables, worker_settings


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Resolves them the way the worker does."""
    edit = f"sudoedit {shlex.quote(subject.config)}"
    if subject.unreadable:
        yield note(
            subject.config, f"could not look: {subject.unreadable}", "sudo llamaforge doctor"
        )
    for mistake in subject.mistakes:
        yield error(subject.config, f"{mistake.message}; {mistake.hint}", edit)
    known = set(variables(WorkerSettings).values())
    try:
        worker_settings({}, {n: v for n, v in subject.values.items() if n in known})
    except SpecError as why:
        yield error(_named(subject, why), f"{why.message}; {why.hint}", edit)
    somebody = subject.coordinator or subject.master or subject.get("LLAMAFORGE_FLEET")
    if subject.unit.installed and not somebody:
        yield note(
            subject.config,
            "neither a coordinator nor MASTER_ADDR is set: the worker has nobody to work for",
            "sudo llamaforge worker install --coordinator HOST:29400",
        )


def _named(subject: Subject, why: SpecError) -> str:
    """The variable that a message is about."""
    return next((name for name in subject.values if name in why.message), subject.config)


CHECK = Check(
    code="LF111",
    title="Settings",
    sees="a line of the settings file is wrong, a value is out of range, NODE_RANK and WORLD_SIZE "
    "don't fit, or no coordinator is set",
    fix="opens the file in an editor",
    look=look,
)
