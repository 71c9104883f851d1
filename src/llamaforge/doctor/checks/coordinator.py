"""LF302: the coordinator, and the host of MASTER_ADDR, can be reached; if not, in which way not.

And a coordinator that is reached takes this worker: the worker itself says so on its health page.

Refused, silent, no route and an unknown name have different causes, so each is said differently.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.checks import reachable
from llamaforge.doctor.contact import Contact
from llamaforge.doctor.finding import Finding, error, note
from llamaforge.doctor.host import Host
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Opens a connection to both."""
    for host in (subject.coordinator, subject.master):
        if host is not None:
            unreachable = list(tried(machine, subject, host))
            yield from unreachable
            if host.named_by == "LLAMAFORGE_COORDINATOR" and not unreachable:
                yield from _refusal(machine, subject, host)


def _refusal(machine: Machine, subject: Subject, host: Host) -> Iterator[Finding]:
    """What the worker was told by a coordinator that does not take it."""
    found = reachable.find(machine, subject, "127.0.0.1")
    said = found[1].json() if found else {}
    status = str(said.get("status", ""))
    if said.get("connected") is not False or "refuses" not in status:
        return
    fix = subject.unit.show_journal("-n", "20")
    where = f"{host.name}:{host.port}"
    if any(word in status for word in ("token", "certificate", "removed")):
        fix = f"sudo llamaforge worker join {where}"
    seen = f"{where} is there, but does not take this worker, which says: {status}"
    yield error(where, seen, fix)


def tried(machine: Machine, subject: Subject, host: Host) -> Iterator[Finding]:
    """What is wrong with the way to one host; nothing where it is open."""
    where = f"{host.name}:{host.port}"
    addresses = subject.addresses(host.name)
    if not addresses:
        seen = f"{host.named_by} names {host.name}, a name that nobody here knows (DNS, /etc/hosts)"
        yield error(where, seen, f"echo 'ADDRESS {host.name}' | sudo tee -a /etc/hosts")
        return
    contact = machine.connect(addresses[0], host.port)
    if contact is Contact.OPEN:
        return
    shown = where if addresses[0] == host.name else f"{where} ({addresses[0]})"
    if contact is Contact.REFUSED and host.named_by == "MASTER_ADDR":
        seen = f"no torchrun waits at {shown} now; the worker waits for one"
        yield note(where, seen)
        return
    seen, fix = explained(host, contact, shown, addresses[0])
    yield error(where, seen, *fix)


def explained(host: Host, contact: Contact, shown: str, address: str) -> tuple[str, list[str]]:
    """A failed connection in words, and the next command."""
    there = f"sudo llamaforge doctor  # on {shlex.quote(host.name)}"
    if contact is Contact.REFUSED:
        starts = {
            "LLAMAFORGE_COORDINATOR": "sudo systemctl restart llamaforge-coordinator",
            "--peer": "sudo systemctl restart llamaforge-worker",
        }.get(host.named_by, "llamaforge doctor")
        seen = (
            f"{shown} refuses: that machine is up, and nothing listens there, or it turns us away"
        )
        return seen, [f"{starts}  # on {shlex.quote(host.name)}"]
    if contact is Contact.NO_ROUTE:
        return f"no route to {shown}: this machine is in no network that leads there", [
            f"ip route get {address}",
            "ip -brief address",
        ]
    if contact is Contact.NO_HOST:
        seen = (
            f"{shown} can't be reached: nobody in the network has this address now (off, "
            "unplugged, or another address), or a firewall forbids it"
        )
        return seen, [f"ip neighbour show {address}", there]
    seen = f"{shown} is silent: it is off, or a firewall on the way or there drops the packets"
    return seen, [there]


CHECK = Check(
    code="LF302",
    title="Coordinator",
    sees="the coordinator or the host of MASTER_ADDR can't be reached: refused, silent, no route, "
    "or an unknown name; or the coordinator refuses the worker, its certificate or its token",
    fix="depends on which of them: the command to run there, or here",
    look=look,
)
