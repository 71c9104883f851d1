"""LF306: packets to the fleet arrive; those sent again show a bad cable or a full link."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, warning
from llamaforge.doctor.interfaces import route
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

SHARE = 0.01
"""Of the packets sent again above which a link is bad."""
FEW = 5
"""Packets sent again that may be chance."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Reads the kernel's counters of every connection to the fleet."""
    for source in subject.fleet:
        address = source.partition("/")[0]
        if "/" in source:
            continue
        said = machine.need("ss", "-tinOH", "dst", f"[{address}]" if ":" in address else address)
        sent, again, waiting = counted(said)
        bad = again > FEW and again > SHARE * max(sent, 1)
        if not bad and not waiting:
            continue
        device = str(route(machine, address).get("dev", "INTERFACE"))
        now = "; a connection waits for an answer right now" if waiting else ""
        yield warning(
            address,
            f"{again} of {sent} packets to {address} had to be sent again{now}",
            f"ip -s link show dev {device}",
            subject.change("LLAMAFORGE_NETWORK_TIMEOUT", "1800"),
        )


def counted(said: str) -> tuple[int, int, bool]:
    """Packets sent, packets sent again, and whether a connection backs off now; from `ss -ti`."""
    sent = sum(int(n) for n in re.findall(r"\bsegs_out:(\d+)", said))
    pairs = re.findall(r"\bretrans:(\d+)/(\d+)", said)
    again = sum(int(total) for _, total in pairs)
    waiting = any(int(n) >= 3 for n in re.findall(r"\bbackoff:(\d+)", said))
    return sent, again, waiting


CHECK = Check(
    code="LF306",
    title="Network time-outs",
    sees="connections to the fleet send packets again (more than 1 %), or wait for an answer",
    fix="shows the interface's own errors; one setting lengthens all network time-outs",
    look=look,
)
