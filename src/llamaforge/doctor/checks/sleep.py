"""LF406: a laptop or desktop does not fall asleep in the middle of a job."""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, note
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Looks for a battery or a desktop, and whether sleeping is ruled out."""
    laptop = any(
        (machine.read(f"{supply}/type") or "").strip() == "Battery"
        for supply in machine.listed("/sys/class/power_supply/*")
    )
    desktop = machine.has("/etc/systemd/system/display-manager.service")
    if not laptop and not desktop:
        return
    states = machine.run("systemctl", "is-enabled", *TARGETS[:2]).out.split()
    if not states or all(state == "masked" for state in states):
        return
    kind = "has a battery" if laptop else "starts a desktop"
    seen = f"this machine {kind} and may fall asleep in the middle of a job"
    yield note(TARGETS[0], seen, f"sudo systemctl mask {' '.join(TARGETS)}")


CHECK = Check(
    code="LF406",
    title="Sleep",
    sees="a laptop or desktop that may suspend",
    fix="masks systemd's targets for sleeping",
    look=look,
)
