"""All checks, in the order of their codes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from llamaforge.doctor.check import Check
from llamaforge.doctor.checks import (
    cgroups,
    clock,
    command,
    confinement,
    coordinator,
    coordinator_service,
    dhcp,
    disk,
    firewalls,
    gpu,
    interface,
    journal,
    libraries,
    lingering,
    memory,
    mounts,
    mtu,
    ownership,
    paths,
    peers,
    ports,
    program,
    python,
    reachable,
    retransmits,
    reverse_dns,
    secrets,
    selinux,
    service,
    settings,
    sleep,
    working_directory,
    wsl,
)
from llamaforge.errors import UserError

CHECKS: tuple[Check, ...] = (
    working_directory.CHECK,
    paths.CHECK,
    python.CHECK,
    libraries.CHECK,
    ownership.CHECK,
    secrets.CHECK,
    program.CHECK,
    command.CHECK,
    disk.CHECK,
    mounts.CHECK,
    settings.CHECK,
    service.CHECK,
    ports.CHECK,
    reachable.CHECK,
    journal.CHECK,
    lingering.CHECK,
    coordinator_service.CHECK,
    firewalls.CHECK,
    coordinator.CHECK,
    interface.CHECK,
    reverse_dns.CHECK,
    dhcp.CHECK,
    retransmits.CHECK,
    mtu.CHECK,
    peers.CHECK,
    clock.CHECK,
    memory.CHECK,
    selinux.CHECK,
    cgroups.CHECK,
    gpu.CHECK,
    wsl.CHECK,
    sleep.CHECK,
    confinement.CHECK,
)


def chosen(codes: Sequence[str]) -> tuple[Check, ...]:
    """The checks of some codes; all where none is given.

    Raises:
        UserError: there is no such code; names the nearest one.
    """
    known = {check.code: check for check in CHECKS}
    for code in codes:
        if code.upper() not in known:
            near = difflib.get_close_matches(code.upper(), known, n=1)
            also = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"no such check {code!r}{also}", hint="llamaforge doctor --list")
    wanted = {code.upper() for code in codes}
    return tuple(check for check in CHECKS if not wanted or check.code in wanted)
