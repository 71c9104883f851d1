"""LF307: a packet as large as this machine's interface allows also gets through.

Where a link on the way takes less and says nothing, small requests work and large ones hang for
ever. It is tried with a request to the peer's port that fills one packet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.host import Host
from llamaforge.doctor.interfaces import links, route
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import HEALTH, Subject

HEADERS = {4: 52, 6: 72}
"""Bytes of IP and TCP headers with the options that Linux sends."""
SMALLER = (8900, 4000, 1492, 1450, 1400, 1280, 1000, 576)
SECONDS = 2.0


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks each peer twice: small, and with a full packet."""
    for address, host in subject.servers.items():
        yield from _tried(machine, address, host)


def _tried(machine: Machine, address: str, host: Host) -> Iterator[Finding]:
    device = str(route(machine, address).get("dev", "lo"))
    mtu = next((int(link["mtu"]) for link in links(machine) if link["ifname"] == device), 0)
    if not mtu or device == "lo" or not _arrives(machine, address, host, 0):
        return  # LF302 and LF308 say when nothing arrives at all
    if _arrives(machine, address, host, mtu) or not _arrives(machine, address, host, 0):
        return
    good = next((m for m in SMALLER if m < mtu and _arrives(machine, address, host, m)), 576)
    yield error(
        address,
        f"packets of {mtu} bytes, which {device} sends, don't reach {address}; {good} bytes do",
        f"sudo ip link set dev {device} mtu {good}  # and in the interface's own settings",
    )


def _arrives(machine: Machine, address: str, host: Host, mtu: int) -> bool:
    """Whether a request that fills one packet of `mtu` bytes is answered."""
    size = mtu - HEADERS[ipaddress.ip_address(address).version]
    answer = machine.ask(
        address,
        host.port,
        HEALTH,
        padding=max(0, size),
        seconds=SECONDS,
        tls=host.speaks_tls,
    )
    return answer is not None


CHECK = Check(
    code="LF307",
    title="Packet size",
    sees="full packets of this machine's interface don't reach a peer, though small ones do",
    fix="sets the size that gets through",
    look=look,
    seconds=40.0,
)
