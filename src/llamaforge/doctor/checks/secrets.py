"""LF106: nobody but its owner can read the worker's identity, a join token or the mail settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.identity.folder import identity_file
from llamaforge.service.places import on_machine

PLACES = on_machine()


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at modes; never at contents."""
    token = subject.get("LLAMAFORGE_TOKEN_FILE") or PLACES.token
    identities = [str(identity_file(f"{folder}/identity")) for folder in subject.state_dirs]
    for path in (token, PLACES.mail_settings, *identities):
        status = machine.status(path)
        if status is not None and status.mode & 0o077:
            yield error(
                path,
                f"{path} is a secret, and its mode {status.mode:04o} lets others read or change it",
                f"sudo chmod 600 {shlex.quote(path)}",
            )
    if subject.coordinator and not subject.get("LLAMAFORGE_FLEET"):
        yield from _stranger(machine, subject, (token, *identities))


def _stranger(machine: Machine, subject: Subject, papers: tuple[str, ...]) -> Iterator[Finding]:
    """A coordinator is named, and nothing here makes this machine known to it."""
    found = [machine.status(path) for path in papers]
    if any(status is not None and status.size for status in found):
        return
    assert subject.coordinator is not None
    where = f"{subject.coordinator.name}:{subject.coordinator.port}"
    yield error(
        where,
        f"this machine has not joined the fleet of {where}, and holds no token for it",
        f"sudo llamaforge worker join {where}",
    )


CHECK = Check(
    code="LF106",
    title="Secrets",
    sees="the worker's key, a join token or the mail settings can be read by others; or a "
    "coordinator is set, and there is neither a certificate nor a token for it",
    fix="takes the rights away from others, or joins",
    look=look,
)
