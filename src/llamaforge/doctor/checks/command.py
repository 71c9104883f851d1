"""LF108: `sudo llamaforge` finds the command.

sudo looks only where its secure_path says, and not every distribution's has /usr/local/bin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, warning
from llamaforge.doctor.machine import CantLook, Machine
from llamaforge.doctor.subject import Subject
from llamaforge.service.places import on_machine

INSTALLED = f"{on_machine().program}/bin/llamaforge"
_USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Looks for the command in each folder of secure_path."""
    if not machine.has(INSTALLED):
        return
    folders = _secure_path(machine).split(":")
    if any(machine.has(f"{folder}/llamaforge") for folder in folders if folder):
        return
    target = "/usr/local/bin" if "/usr/local/bin" in folders else "/usr/bin"
    yield warning(
        "llamaforge",
        f"sudo does not find the command llamaforge: it is in none of {', '.join(folders)}",
        f"sudo ln -s {INSTALLED} {target}/llamaforge",
    )


def _secure_path(machine: Machine) -> str:
    texts = []
    for name in ["/etc/sudoers", *machine.listed("/etc/sudoers.d/*")]:
        try:
            texts.append(machine.read(name) or "")
        except CantLook:
            continue  # only root reads it; what is usual is a good guess
    pattern = r'^\s*Defaults\s+secure_path\s*=\s*"?([^"\n]+)"?'
    found = re.findall(pattern, "\n".join(texts), re.MULTILINE)
    return found[-1].strip() if found else _USUAL


CHECK = Check(
    code="LF108",
    title="Command",
    sees="the command llamaforge is in no folder of sudo's secure_path",
    fix="links it there",
    look=look,
)
