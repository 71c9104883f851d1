"""Which firewall drops the fleet's connections, and the lines that open it for the fleet only."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from llamaforge.doctor import iptables_rules, nft_rules
from llamaforge.doctor.machine import MISSING, CantLook, Machine
from llamaforge.doctor.packet_filter import Chain, Packet, verdict

DEFAULT_RANGE = (32768, 60999)
"""The kernel's own net.ipv4.ip_local_port_range."""
Ports = Sequence[tuple[int, int]]


class Wall(NamedTuple):
    """One chain of a firewall through which everything that arrives has to go."""

    kind: str
    """`nftables`, `iptables` or `ip6tables`."""
    table: str
    """Family and name, such as `inet filter`."""
    chain: Chain
    chains: dict[str, Chain]
    families: tuple[int, ...]
    """IP versions that it sees."""

    def stops(self, source: str, ports: Ports, interface: str) -> bool:
        """Whether it stops connections from an address to one of these ports."""
        found = ipaddress.ip_network(source, strict=False)
        if found.version not in self.families:
            return False
        address = str(found.network_address)
        tried = {port for first, last in ports for port in (first, (first + last) // 2, last)}
        return any(
            verdict(self.chain, self.chains, Packet(address, port, interface)) != "accept"
            for port in tried
        )


def walls(machine: Machine) -> list[Wall]:
    """All chains for what arrives.

    Raises:
        CantLook: this process may not read them.
    """
    found = []
    owned = set()
    for kind, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        for chains in _saved(machine, kind):
            owned.add((family, "filter"))
            version = 4 if family == "ip" else 6
            found.append(Wall(kind, "filter", chains["INPUT"], chains, (version,)))
    return found + [wall for wall in _nft(machine) if tuple(wall.table.split()) not in owned]


def _saved(machine: Machine, kind: str) -> Iterator[dict[str, Chain]]:
    """The filter tables of iptables, of both its backends where both are there."""
    seen = []
    for command in (f"{kind}-save", f"{kind}-legacy-save"):
        legacy = machine.read("/proc/net/ip_tables_names") if "legacy" in command else "unknown"
        done = machine.run(command) if legacy else None
        if done is None or done.code == MISSING:
            continue
        if done.code:
            raise CantLook(
                f"the firewall can only be read by root ({command}): sudo llamaforge doctor"
            )
        chains = iptables_rules.read(done.out)
        if "INPUT" in chains and chains not in seen:
            seen.append(chains)
            yield chains


def _nft(machine: Machine) -> list[Wall]:
    done = machine.run("nft", "-j", "list", "ruleset")
    if done.code == MISSING:
        return []
    if done.code:
        raise CantLook("the firewall can only be read by root (nft): sudo llamaforge doctor")
    versions = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}
    return [
        Wall(
            "nftables",
            f"{table.family} {table.name}",
            table.chains[name],
            table.chains,
            versions[table.family],
        )
        for table in nft_rules.read(done.out)
        for name in table.inputs
    ]


def local_ports(machine: Machine) -> tuple[int, int]:
    """The ports that the kernel gives to who asks for any: Gloo's are among them."""
    words = (machine.read("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else DEFAULT_RANGE


# ── the lines that open it ────────────────────────────────────────────────────────────────────


def manager(machine: Machine) -> str:
    """Which program keeps the rules: `ufw`, `firewalld`, or "" for none."""
    if "Status: active" in machine.run("ufw", "status").out:
        return "ufw"
    if machine.run("firewall-cmd", "--state").out.strip() == "running":
        return "firewalld"
    return ""


def ufw_lines(sources: Sequence[str], ports: Ports) -> list[str]:
    """For ufw: one line for each address."""
    listed = ",".join(_span(port, ":") for port in ports)
    return [f"sudo ufw allow proto tcp from {source} to any port {listed}" for source in sources]


def firewalld_lines(sources: Sequence[str], ports: Ports, zone: str) -> list[str]:
    """For firewalld: rich rules in the zone of the interface, kept over a reboot."""
    lines = []
    for source in sources:
        family = f"ipv{ipaddress.ip_network(source, strict=False).version}"
        for port in ports:
            rule = (
                f'rule family="{family}" source address="{source}" '
                f'port port="{_span(port, "-")}" protocol="tcp" accept'
            )
            lines.append(f"sudo firewall-cmd --permanent --zone={zone} --add-rich-rule='{rule}'")
    return [*lines, "sudo firewall-cmd --reload"]


def nft_lines(wall: Wall, sources: Sequence[str], ports: Ports) -> list[str]:
    """For plain nftables: a rule at the head of the chain that drops."""
    listed = ", ".join(_span(port, "-") for port in ports)
    lines = []
    for version, field in ((4, "ip"), (6, "ip6")):
        found = [s for s in sources if ipaddress.ip_network(s, strict=False).version == version]
        if found and version in wall.families:
            lines.append(
                f"sudo nft 'insert rule {wall.table} {wall.chain.name} "
                f"{field} saddr {{ {', '.join(found)} }} tcp dport {{ {listed} }} accept'"
            )
    return lines


def iptables_lines(wall: Wall, sources: Sequence[str], ports: Ports) -> list[str]:
    """For plain iptables: a rule at the head of INPUT."""
    listed = ",".join(_span(port, ":") for port in ports)
    return [
        f"sudo {wall.kind} -I INPUT -p tcp -s {source} -m multiport --dports {listed} -j ACCEPT"
        for source in sources
        if ipaddress.ip_network(source, strict=False).version in wall.families
    ]


LINES: dict[str, Callable[[Wall, Sequence[str], Ports], list[str]]] = {
    "nftables": nft_lines,
    "iptables": iptables_lines,
    "ip6tables": iptables_lines,
}


def _span(port: tuple[int, int], to: str) -> str:
    return str(port[0]) if port[0] == port[1] else f"{port[0]}{to}{port[1]}"
