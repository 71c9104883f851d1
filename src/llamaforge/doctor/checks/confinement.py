"""LF407: ranks and people's scripts can be confined, so that they can't read the worker's key."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

PROBE = "from llamaforge import landlock; print(landlock.why_not())"
CALLS = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
CONSEQUENCE = (
    "ranks and scripts run unconfined: whoever may submit a job can read this node's key and "
    "other jobs' files"
)


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks the kernel, and looks at the unit's filter of system calls."""
    done = machine.run(sys.executable, "-c", PROBE)
    why = done.out.strip()
    if done.code == 0 and why:
        fix = "cat /sys/kernel/security/lsm" if "switched off" in why else "uname -r"
        yield warning("Landlock", f"{why}: {CONSEQUENCE}", fix)
        return
    unit = subject.unit
    if not unit.installed or unit.manager == "user":
        return
    asked = machine.run("systemctl", "show", "--property=SystemCallFilter", "--value", unit.name)
    allowed = asked.out.split()
    if asked.code == 0 and allowed and not allowed[0].startswith("~"):
        missing = sorted(set(CALLS.split()) - set(allowed))
        if missing:
            folder = f"/etc/systemd/system/{unit.name}.d"
            yield warning(
                unit.name,
                f"its SystemCallFilter= forbids {', '.join(missing)}: {CONSEQUENCE}",
                f"sudo mkdir -p {folder}",
                f"printf '[Service]\\nSystemCallFilter={CALLS}\\n' "
                f"| sudo tee {folder}/60-landlock.conf",
                f"sudo systemctl daemon-reload && sudo systemctl restart {unit.name}",
            )


CHECK = Check(
    code="LF407",
    title="Confinement",
    sees="the kernel has no Landlock, or it is switched off, or the unit's filter of system calls "
    "forbids it: ranks and scripts can then read the node's key and other jobs' files",
    fix="shows the kernel's version or its security modules, or lets the unit use Landlock",
    look=look,
)
