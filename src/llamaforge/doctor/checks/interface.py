"""LF303: the node is known by an address that others can reach, on the interface that is meant.

Debian gives a machine's own name to 127.0.1.1; a program that looks itself up then offers others
its loopback address. LlamaForge's ranks go by routes instead, plain torchrun scripts do not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.interfaces import links, route
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

_INSIDE = ("docker", "br-", "virbr", "veth", "podman", "cni", "lxc", "lo")
"""How interfaces begin that lead to containers of this machine only."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at the host's name, LLAMAFORGE_ADDRESS, and the interfaces that the settings name."""
    yield from _host_name(machine, subject)
    yield from _address(subject)
    yield from _loopback(subject)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        yield from _interface(machine, subject, variable)


def _host_name(machine: Machine, subject: Subject) -> Iterator[Finding]:
    name = (machine.read("/etc/hostname") or machine.run("uname", "-n").out).strip()
    loopback = [a for a in machine.addresses(name) if ipaddress.ip_address(a).is_loopback]
    if not name or not loopback:
        return
    own = subject.own_address()
    seen = f"this host's name {name} stands for {loopback[0]}, its loopback address"
    pattern = loopback[0].replace(".", r"\.")
    listed = any(
        line.split()[:1] == loopback[:1] and name in line.split()[1:]
        for line in (machine.read("/etc/hosts") or "").splitlines()
    )
    fix = (
        f"sudo sed -i 's/^{pattern}\\s.*/{own} {name}/' /etc/hosts"
        if listed and loopback[0] not in ("127.0.0.1", "::1")
        else f"sudo sed -i '1i {own} {name}' /etc/hosts"
    )
    report = warning if subject.master else note
    yield report(name, seen, fix)


def _address(subject: Subject) -> Iterator[Finding]:
    given = subject.get("LLAMAFORGE_ADDRESS")
    if not given:
        return
    own = {address: interface for interface, address in subject.own_addresses()}
    listed = ", ".join(f"{a} ({i})" for a, i in own.items()) or "none"
    if given not in own:
        seen = f"LLAMAFORGE_ADDRESS is {given}, which this machine does not have; it has {listed}"
        yield error(given, seen, subject.change("LLAMAFORGE_ADDRESS", next(iter(own), "ADDRESS")))
    elif own[given].startswith(_INSIDE):
        seen = f"LLAMAFORGE_ADDRESS is {given}, of {own[given]}, which others can't reach"
        better = [a for a, i in own.items() if not i.startswith(_INSIDE)]
        yield error(given, seen, subject.change("LLAMAFORGE_ADDRESS", (better or ["ADDRESS"])[0]))


def _loopback(subject: Subject) -> Iterator[Finding]:
    """A worker whose master is loopback while others are meant waits for itself."""
    master = subject.master
    if master is None or subject.get("NODE_RANK") in ("", "0"):
        return
    found = subject.addresses(master.name)[:1]
    if found and ipaddress.ip_address(found[0]).is_loopback and subject.peers:
        seen = f"MASTER_ADDR is {master.name}, which means {found[0]} here: this machine itself"
        yield error(master.name, seen, subject.change("MASTER_ADDR", subject.peers[0].name))


def _interface(machine: Machine, subject: Subject, variable: str) -> Iterator[Finding]:
    given = subject.get(variable).lstrip("=^")
    if not given or subject.get(variable).startswith("^"):
        return
    name = given.split(",")[0]
    known = {link["ifname"]: link for link in links(machine)}
    good = _towards(machine, subject) or next(
        (n for n in known if not n.startswith(_INSIDE)), "INTERFACE"
    )
    if name not in known:
        seen = f"{variable} is {name}; there is no such interface, but {', '.join(known)}"
        yield error(name, seen, subject.change(variable, good))
    elif "UP" not in known[name].get("flags", ()):
        seen = f"{variable} is {name}, which is down"
        yield error(name, seen, f"sudo ip link set dev {name} up")
    elif good in known and name != good:
        seen = f"{variable} is {name}, but the fleet is reached through {good}"
        yield warning(name, seen, subject.change(variable, good))


def _towards(machine: Machine, subject: Subject) -> str:
    """The interface that leads to the first node of the fleet; "" where none is known."""
    for address in subject.fleet[:1]:
        return str(route(machine, address.partition("/")[0]).get("dev", ""))
    return ""


CHECK = Check(
    code="LF303",
    title="Interface",
    sees="the host's name stands for a loopback address; LLAMAFORGE_ADDRESS is not this machine's "
    "or of a container bridge; GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME is missing, down, or not "
    "the way to the fleet",
    fix="sets the right name or address",
    look=look,
)
