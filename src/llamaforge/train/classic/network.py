"""Which of this machine's addresses another one reaches: the route decides, not the host's name.

A host's name may stand on 127.0.1.1 in /etc/hosts, and a machine with docker has bridges that
lead nowhere; both have sent other launchers to the wrong interface. The kernel knows the answer:
a UDP socket "connected" to the other side has the right local address, and sends nothing.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping, Sequence

from llamaforge.errors import FleetError, UserError

_SIOCGIFADDR = 0x8915
_ANY_PORT = 9  # discard; nothing is sent


def address_towards(host: str) -> str:
    """The local IP address on the route to `host` (a name or an address).

    Raises:
        FleetError: the name is unknown or there is no route.
    """
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError) as error:
        raise FleetError(
            f"there is no route from this machine to {host}: {error}",
            hint=f"try `ip route get {host}` here",
        ) from error


def own_address(host: str, environ: Mapping[str, str]) -> str:
    """The address to offer to the other nodes: GLOO_SOCKET_IFNAME's, else the one towards `host`.

    Raises:
        UserError: GLOO_SOCKET_IFNAME names an interface without an IPv4 address.
        FleetError: no route.
    """
    interface = environ.get("GLOO_SOCKET_IFNAME", "")
    return interface_address(interface) if interface else address_towards(host)


def interface_address(interface: str) -> str:
    """The IPv4 address of a network interface.

    Raises:
        UserError: there is no such interface, or it has no IPv4 address.
    """
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            raise UserError(
                f"GLOO_SOCKET_IFNAME is {interface!r}: {error.strerror}",
                hint="`ip -brief address` lists the interfaces of this machine",
            ) from error
    return socket.inet_ntoa(answer[20:24])


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def agree(offered: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """One address per node that all nodes reach; asked on the first node.

    The first node may know itself as a loopback address only (its own name in /etc/hosts), and so
    may others on the same machine. As soon as one node is elsewhere, they all need the address
    that routes to it.

    Args:
        offered: what each node takes for its address, the first node's first.
        environ: of this process.
    """
    elsewhere = [address for address in offered if not is_loopback(address)]
    if not elsewhere:
        return list(offered)
    mine = offered[0]
    if is_loopback(mine):
        mine = own_address(elsewhere[0], environ)
    return [mine if is_loopback(address) else address for address in offered]
