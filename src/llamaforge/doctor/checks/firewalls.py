"""LF301: no firewall of this machine stops the fleet, whose ranks also use random ports.

The lines that it prints open the worker's port and the kernel's range of random ports (Gloo asks
for any port) for the addresses of the fleet and for nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor import firewall
from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, warning
from llamaforge.doctor.firewall import Wall
from llamaforge.doctor.interfaces import route
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.spec.fleet import CONTROL_PORT

SOME_ADDRESS = "203.0.113.1"
"""Of a documentation network (RFC 5737): stands for any other machine."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Follows the rules for a connection from each address of the fleet."""
    ports = _ports(machine, subject)
    walls = firewall.walls(machine)
    if not subject.fleet:
        if closed := [wall for wall in walls if wall.stops(SOME_ADDRESS, ports, "eth0")]:
            seen = (
                f"{_names(closed)} drops what arrives by default, and no node of the fleet is known"
            )
            yield warning(
                closed[0].table, seen, "sudo llamaforge doctor --peer ADDRESS --only LF301"
            )
        return
    stopped = {
        source: [wall for wall in walls if wall.stops(source, ports, _interface(machine, source))]
        for source in subject.fleet
    }
    stopped = {source: closed for source, closed in stopped.items() if closed}
    if stopped:
        yield _closed(machine, stopped, ports)


def _closed(
    machine: Machine, stopped: dict[str, list[Wall]], ports: list[tuple[int, int]]
) -> Finding:
    sources = list(stopped)
    closed = list(
        {(w.kind, w.table, w.chain.name): w for ws in stopped.values() for w in ws}.values()
    )
    keeper = firewall.manager(machine)
    if keeper == "ufw":
        lines = firewall.ufw_lines(sources, ports)
    elif keeper == "firewalld":
        lines = firewall.firewalld_lines(sources, ports, _zone(machine, sources[0]))
    else:
        lines = [
            line for wall in closed for line in firewall.LINES[wall.kind](wall, sources, ports)
        ]
    listed = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ports)
    keep = "" if keeper else "; to keep the line over a reboot, add it to the firewall's own file"
    seen = (
        f"{keeper or _names(closed)} stops connections from {', '.join(sources)} "
        f"to the TCP ports {listed}{keep}"
    )
    return error(keeper or closed[0].kind, seen, *lines)


def _ports(machine: Machine, subject: Subject) -> list[tuple[int, int]]:
    """Port of the worker, of torchrun's store and of the coordinator where they are here."""
    single = {subject.peer_port}
    if subject.master and subject.is_here(subject.master.name):
        single |= {subject.master_port, subject.peer_port + 1}
    if subject.coordinator and subject.is_here(subject.coordinator.name):
        single |= {subject.coordinator.port or CONTROL_PORT}
    random = firewall.local_ports(machine)
    outside = [port for port in sorted(single) if not random[0] <= port <= random[1]]
    return [(port, port) for port in outside] + [random]


def _interface(machine: Machine, source: str) -> str:
    return str(route(machine, source.partition("/")[0]).get("dev", "eth0"))


def _zone(machine: Machine, source: str) -> str:
    done = machine.run("firewall-cmd", f"--get-zone-of-interface={_interface(machine, source)}")
    if done.code == 0 and done.out.strip():
        return done.out.strip()
    return machine.run("firewall-cmd", "--get-default-zone").out.strip() or "public"


def _names(closed: list[Wall]) -> str:
    return " and ".join(
        dict.fromkeys(f"{wall.kind} ({wall.table}, chain {wall.chain.name})" for wall in closed)
    )


CHECK = Check(
    code="LF301",
    title="Firewall",
    sees="ufw, firewalld, nftables or iptables would stop a connection from a node of the fleet to "
    "the worker's port or to the random ports of the ranks",
    fix="opens exactly these ports, for the addresses of the fleet only",
    look=look,
)
