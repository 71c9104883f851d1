"""LF204: the journal survives a reboot; otherwise the lines before a crash are lost with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, note
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

_OWN = "/etc/systemd/journald.conf.d/zz-llamaforge.conf"
SET = (
    "sudo mkdir -p /etc/systemd/journald.conf.d",
    f"printf '[Journal]\\nStorage=persistent\\n' | sudo tee {_OWN}",
    "sudo systemctl restart systemd-journald",
)
KEEP = (
    "sudo mkdir -p /var/log/journal",
    "sudo systemd-tmpfiles --create --prefix /var/log/journal",
    "sudo journalctl --flush",
)


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Looks for the journal's folder and its setting."""
    if not machine.has("/run/systemd/system"):
        return
    drop_ins = machine.listed("/etc/systemd/journald.conf.d/*.conf")
    names = ["/etc/systemd/journald.conf", *drop_ins]
    text = "\n".join(machine.read(name) or "" for name in names)
    storage = ([*re.findall(r"^\s*Storage\s*=\s*(\w+)", text, re.MULTILINE)] or ["auto"])[-1]
    if storage in ("volatile", "none"):
        seen = f"journald has Storage={storage}: logs are gone after a reboot"
        yield note("journald", seen, *SET, *KEEP)
    elif storage == "auto" and not machine.has("/var/log/journal"):
        yield note(
            "/var/log/journal", "there is no /var/log/journal: logs are gone after a reboot", *KEEP
        )


CHECK = Check(
    code="LF204",
    title="Journal",
    sees="journald keeps its logs in memory only",
    fix="makes the folder that it keeps them in",
    look=look,
)
