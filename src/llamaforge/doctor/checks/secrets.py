"""LF106: nobody but its owner can read the fleet's token or the mail settings, and it is there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.service.places import on_machine

PLACES = on_machine()


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at modes; never at contents."""
    token = subject.get("LLAMAFORGE_TOKEN_FILE") or PLACES.token
    fleet = [path] if (path := subject.get("LLAMAFORGE_FLEET")) else []
    for path in (token, PLACES.mail_settings, *fleet):
        status = machine.status(path)
        if status is None:
            if path == token and subject.coordinator and not fleet:
                yield _absent(subject, token)
        elif status.mode & 0o077:
            yield error(
                path,
                f"{path} is a secret, and its mode {status.mode:04o} lets others read or change it",
                f"sudo chmod 600 {shlex.quote(path)}",
            )
        elif path == token and status.size == 0:
            yield _absent(subject, token)


def _absent(subject: Subject, token: str) -> Finding:
    host = subject.coordinator.name if subject.coordinator else ""
    return error(
        token,
        f"the fleet's token is missing or empty; the coordinator {host} takes nobody without it",
        "sudo llamaforge worker install --token-file FILE  # FILE: a copy of the fleet's token",
    )


CHECK = Check(
    code="LF106",
    title="Secrets",
    sees="the fleet's token, the fleet file or the mail settings can be read by others, or the "
    "token is missing though a coordinator is set",
    fix="takes the rights away from others",
    look=look,
)
