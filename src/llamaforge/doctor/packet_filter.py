"""What a packet filter does with a new connection to this machine: a small model of its rules.

nftables and iptables are both read into it (`nft_rules`, `iptables_rules`), so that "is it open?"
is answered by following the rules as the kernel does, not by looking for a line that seems right.
A condition that the model does not know is taken as one that does not hold.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Packet(NamedTuple):
    """The first packet of a TCP connection that arrives."""

    source: str
    """Address of the sender."""
    port: int
    """Port that it is for."""
    interface: str = "eth0"
    destination: str = ""
    """Address of this machine; empty when it doesn't matter."""


class Condition(NamedTuple):
    """One test of a rule."""

    field: str
    """`source`, `destination`, `port`, `interface`, `protocol`, `state`; others never hold."""
    values: tuple[object, ...]
    """Networks, `(first, last)` ports, or words; one has to fit."""
    negated: bool = False

    def holds(self, packet: Packet) -> bool:
        """Whether the packet passes the test."""
        if self.field not in _TESTS:
            return False
        fits = any(_TESTS[self.field](packet, value) for value in self.values)
        return fits != self.negated


class Rule(NamedTuple):
    """Conditions that must all hold, and what happens then."""

    conditions: tuple[Condition, ...]
    verdict: str
    """`accept`, `drop`, `reject`, `return`, `jump`, `goto`, or "" for none (counting, logging)."""
    target: str = ""
    """The chain of a jump or goto."""


class Chain(NamedTuple):
    """Rules in order."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: str = ""
    """What happens at the end of a chain that the kernel calls itself."""


def verdict(start: Chain, chains: Mapping[str, Chain], packet: Packet) -> str:
    """What becomes of a packet.

    Args:
        start: the chain that the kernel calls.
        chains: all chains that it may jump to.
        packet: the packet.

    Returns:
        `accept`, `drop` or `reject`.
    """
    return _walk(start, chains, packet, 0) or start.policy or "accept"


def _walk(chain: Chain, chains: Mapping[str, Chain], packet: Packet, depth: int) -> str:
    """The verdict of a chain's rules; "" where they come to none."""
    if depth > 16:  # the kernel allows no such depth either
        return ""
    for rule in chain.rules:
        if not all(condition.holds(packet) for condition in rule.conditions):
            continue
        if rule.verdict in ("accept", "drop", "reject"):
            return rule.verdict
        if rule.verdict == "return":
            return ""
        if rule.verdict in ("jump", "goto"):
            inner = _walk(chains.get(rule.target, Chain("")), chains, packet, depth + 1)
            if inner or rule.verdict == "goto":
                return inner
    return ""


def _in_network(address: str, network: object) -> bool:
    assert isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
    found = ipaddress.ip_address(address)
    return found.version == network.version and found in network


def _is_source(packet: Packet, value: object) -> bool:
    return _in_network(packet.source, value)


def _is_destination(packet: Packet, value: object) -> bool:
    return not packet.destination or _in_network(packet.destination, value)


def _is_port(packet: Packet, value: object) -> bool:
    assert isinstance(value, tuple)
    return bool(value[0] <= packet.port <= value[1])


def _is_interface(packet: Packet, value: object) -> bool:
    name = str(value)
    if name.endswith(("*", "+")):
        return packet.interface.startswith(name[:-1])
    return packet.interface == name


def _is_protocol(packet: Packet, value: object) -> bool:  # noqa: ARG001
    return str(value) in ("tcp", "6", "all", "0")


def _is_state(packet: Packet, value: object) -> bool:  # noqa: ARG001
    return str(value).lower() == "new"


_TESTS = {
    "source": _is_source,
    "destination": _is_destination,
    "port": _is_port,
    "interface": _is_interface,
    "protocol": _is_protocol,
    "state": _is_state,
}


def network(text: str) -> Network:
    """An address or network as a network. Raises ValueError for anything else."""
    return ipaddress.ip_network(text, strict=False)
