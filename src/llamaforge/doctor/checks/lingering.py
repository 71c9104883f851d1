"""LF205: a service of a person's own manager goes on when that person logs out."""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks logind, for user services only."""
    if subject.unit.manager != "user":
        return
    user = machine.user_name()
    if machine.has(f"/var/lib/systemd/linger/{user}"):
        return
    yield error(
        user,
        f"the service belongs to {user}, who does not linger: it ends at logout and does not "
        "start on boot",
        f"loginctl enable-linger {user}",
    )


CHECK = Check(
    code="LF205",
    title="Lingering",
    sees="a user service without lingering: it ends at logout and does not start on boot",
    fix="turns lingering on",
    look=look,
)
