"""LF305: the address by which others know this node will not change by itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, note, warning
from llamaforge.doctor.interfaces import links
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks for a lease on the address that others use."""
    own = subject.own_address()
    for link in links(machine):
        for info in link.get("addr_info", ()):
            if info.get("local") != own or not info.get("dynamic") or info.get("family") != "inet":
                continue
            master = any(
                subject.is_here(h.name) for h in (subject.coordinator, subject.master) if h
            )
            relied_on = master or subject.get("LLAMAFORGE_ADDRESS") == own
            left = int(info.get("valid_life_time", 0))
            seen = (
                f"{own} on {link['ifname']} is lent by DHCP (for {left // 60} more minutes) and "
                f"may change; reserve it for {link.get('address', 'this card')} in the router"
            )
            yield (warning if relied_on else note)(own, seen, *_fix(machine, link["ifname"], info))


def _fix(machine: Machine, interface: str, info: dict[str, object]) -> list[str]:
    """Keeps the address by the program that manages the interface.

    NetworkManager keeps it beside what DHCP gives: without DHCP the gateway would be gone, too.
    """
    place = f"{info['local']}/{info['prefixlen']}"
    done = machine.run("nmcli", "-g", "GENERAL.CONNECTION", "device", "show", interface)
    if done.code == 0 and done.out.strip():
        name = shlex.quote(done.out.strip())
        return [
            f"sudo nmcli connection modify {name} +ipv4.addresses {place}",
            f"sudo nmcli connection up {name}",
        ]
    return [f"sudo ip address change {place} dev {interface} valid_lft forever  # until a reboot"]


CHECK = Check(
    code="LF305",
    title="Address",
    sees="the address by which the fleet knows this node is lent by DHCP",
    fix="keeps the address",
    look=look,
)
