"""Addresses, networks and host names that a setting lists: `10.9.66.0/24, fd00::7, node1.lan`.

Pure: names are only recognised here. Who needs their addresses looks them up.
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from llamaforge.errors import SpecError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?", re.ASCII)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as IPv6 sockets see them."""


class Networks(msgspec.Struct, frozen=True):
    """What a list names. Make it with `parse_networks`."""

    networks: tuple[Network, ...] = ()
    """Single addresses are networks of one."""
    names: tuple[str, ...] = ()
    """Host names, as written."""

    def covers(self, address: Address) -> bool:
        """Whether a canonical address is in one of the networks. Names don't count here."""
        return any(address in network for network in self.networks)


def parse_networks(text: str | None, *, source: str = "the list") -> Networks:
    """Reads a list with commas between; None and "" name nothing.

    Args:
        text: the list.
        source: where it is from, for messages: a flag or variable.

    Raises:
        SpecError: a part is neither an address nor a network nor a host name.
    """
    networks: list[Network] = []
    names: list[str] = []
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        try:
            networks.append(_network(part))
        except ValueError:
            if not _is_name(part):
                raise SpecError(
                    f"{source} names {part!r}, which is no address, network or host",
                    hint="for example: 10.9.66.154, 10.9.66.0/24, fd00::/64, node1.example.org",
                ) from None
            names.append(part)
    return Networks(tuple(networks), tuple(names))


def is_host(text: str) -> bool:
    """Whether this is an IP address, or can be a host's name: not `a..b`, not `10.0.0.300`."""
    try:
        canonical(text)
    except ValueError:
        return _is_name(text)
    return True


def canonical(address: str) -> Address:
    """An address as it is compared: without a scope, IPv4 as IPv4.

    Raises:
        ValueError: it is not an IP address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _network(part: str) -> Network:
    """Raises ValueError for what is neither an address nor a network."""
    network = ipaddress.ip_network(part, strict=False)  # 10.9.66.154/24 means its network
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((str(mapped), network.prefixlen - 96))
    return network


def _is_name(part: str) -> bool:
    """Whether this can be a host's name. `10.9.66` and `1.2.3.400` are slips, not names."""
    last = part.rstrip(".").rpartition(".")[2]
    return len(part) <= 253 and not last.isdigit() and bool(_NAME.fullmatch(part))
