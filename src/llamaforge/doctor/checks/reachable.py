"""LF203: a worker that is active also answers at the address at which others look for it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.contact import Answer, Contact
from llamaforge.doctor.finding import Finding, error, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import HEALTH, PEER_PORTS, Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks for its health, on the own address and on loopback."""
    unit = subject.unit
    if not unit.active or subject.peer_port == 0 or not is_worker(unit.argv):
        return
    address = subject.own_address()
    if find(machine, subject, address) is not None:
        return
    port, answer = find(machine, subject, "127.0.0.1") or (subject.peer_port, None)
    if answer is not None and not ipaddress.ip_address(address).is_loopback:
        yield warning(
            f"{address}:{port}",
            f"the worker answers on 127.0.0.1:{port}, and not on {address}: others can't see it",
            subject.change("LLAMAFORGE_PEER_HOST", "0.0.0.0"),
            unit.systemctl("restart"),
        )
    else:
        yield _silent(machine, subject, address)


def _silent(machine: Machine, subject: Subject, address: str) -> Finding:
    ports = range(subject.peer_port, subject.peer_port + PEER_PORTS)
    contacts = {port: machine.connect(address, port, 1.0) for port in ports}
    port = next((p for p in ports if contacts[p] is Contact.OPEN), subject.peer_port)
    unit = subject.unit
    return error(
        f"{address}:{port}",
        f"{unit.name} is active, but {_how(contacts[port])} at {address}:{port}",
        unit.systemctl("restart"),
        unit.show_journal("-n", "50"),
    )


def find(machine: Machine, subject: Subject, address: str) -> tuple[int, Answer] | None:
    """The port at an address of this machine at which the worker answers, and its answer."""
    first = subject.peer_port
    for port in range(first, first + PEER_PORTS):
        answer = machine.ask(address, port, HEALTH, seconds=2.0)
        if answer is not None and answer.status == 200 and "connected" in answer.json():
            return port, answer
    return None


def is_worker(argv: list[str]) -> bool:
    """Whether a command line is the worker's; one edited to torchrun has no port of ours."""
    return bool(re.search(r"llamaforge\S* worker run", " ".join(argv)))


def _how(contact: Contact) -> str:
    if contact is Contact.OPEN:
        return "it accepts connections and answers nothing"
    return {Contact.REFUSED: "nothing listens"}.get(contact, "nothing answers")


CHECK = Check(
    code="LF203",
    title="Reachable",
    sees="the service is active, but its health page does not answer at the node's own address",
    fix="lets it listen on all addresses, or restarts it",
    look=look,
)
