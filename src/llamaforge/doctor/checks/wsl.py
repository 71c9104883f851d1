"""LF405: under WSL2 systemd is on, and others can reach the machine. Untried on a real one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Looks at the kernel's name and /etc/wsl.conf."""
    kernel = (machine.read("/proc/sys/kernel/osrelease") or "").lower()
    if "microsoft" not in kernel:
        return
    text = machine.read("/etc/wsl.conf") or ""
    boot = re.search(r"^\[boot\]\s*$((?:\n(?!\[).*)*)", text, re.MULTILINE)
    on = boot and re.search(r"^\s*systemd\s*=\s*true\b", boot[1], re.MULTILINE | re.IGNORECASE)
    if not machine.has("/run/systemd/system"):
        turn_on = (
            "sudo sed -i '/^\\[boot\\]/a systemd=true' /etc/wsl.conf"
            if boot
            else ("printf '[boot]\\nsystemd=true\\n' | sudo tee -a /etc/wsl.conf")
        )
        seen = "this is WSL2 without systemd: no service can run"
        fix = () if on else (turn_on,)
        yield error("/etc/wsl.conf", seen, *fix, "wsl.exe --shutdown")
    yield note(
        "WSL2",
        "this is WSL2: it sleeps when Windows has no window of it open, and others reach it only "
        "with networkingMode=mirrored in .wslconfig",
        "printf '[wsl2]\\nnetworkingMode=mirrored\\n'  # into %UserProfile%\\.wslconfig",
    )


CHECK = Check(
    code="LF405",
    title="WSL2",
    sees="WSL2, in particular without systemd",
    fix="turns systemd on",
    look=look,
)
