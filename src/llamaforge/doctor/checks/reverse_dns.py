"""LF304: looking up the name of a peer's address is quick.

torch's c10d asks for it with every process group; where the name server is silent that costs
about 30 seconds each time.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, note, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

SLOW = 1.0
"""Seconds."""
PATIENCE = 4.0
"""Seconds until the question is given up."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks for the name of each address of the fleet."""
    names = {a: host.name for host in subject.hosts for a in subject.addresses(host.name)[:1]}
    for address, name in names.items():
        start = machine.tick()
        done = machine.run("getent", "hosts", address, seconds=PATIENCE)
        took = machine.tick() - start
        name = name if name != address else f"node-{address.replace('.', '-').replace(':', '-')}"
        fix = f"echo '{address} {name}' | sudo tee -a /etc/hosts"
        if done.timed_out or took > SLOW:
            seen = (
                f"the name of {address} took more than {min(took, PATIENCE):.0f} s to look up; "
                "torch.distributed loses about 30 s by it at every start"
            )
            yield warning(address, seen, fix)
        elif done.code:
            yield note(address, f"{address} has no name here; some logs show it as it is", fix)


CHECK = Check(
    code="LF304",
    title="Reverse DNS",
    sees="the address of a peer has no name, or looking it up is slow",
    fix="writes the name into /etc/hosts",
    look=look,
)
