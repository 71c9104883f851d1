"""LF206: where this machine is the coordinator's, its service is enabled and runs.

The way from a worker to its coordinator is LF302; this looks at the service itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.checks.service import loaded
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.doctor.unit import named
from llamaforge.service.kind import COORDINATOR
from llamaforge.service.places import on_machine

STATE = on_machine(kind=COORDINATOR).state


def look(machine: Machine, _: Subject) -> Iterator[Finding]:
    """Looks at the unit and at who can read its folder; nothing where there is no coordinator."""
    unit = named(machine, COORDINATOR.unit)
    if not unit.installed:
        return
    if "masked" in (unit["LoadState"], unit["UnitFileState"]):
        yield error(unit.name, f"{unit.name} is masked", unit.systemctl("unmask"))
    elif unit["LoadState"] != "loaded":
        seen = f"{unit.name} can't be loaded ({unit['LoadState']})"
        yield error(unit.name, seen, f"systemd-analyze verify {unit.name}")
    else:
        yield from loaded(machine, unit)
    status = machine.status(STATE)
    if status is not None and status.mode & 0o077:
        yield error(
            STATE,
            f"{STATE} holds the key of the fleet's authority, and its mode {status.mode:04o} lets "
            "others look into it",
            f"sudo chmod 700 {STATE}",
        )


CHECK = Check(
    code="LF206",
    title="Coordinator's service",
    sees="on a coordinator's machine: its unit failed, stopped, restarting, masked, not enabled, "
    "or changed on disk; its state folder, with the authority's key, is open to others",
    fix="starts, enables or reloads it, or closes the folder",
    look=look,
)
