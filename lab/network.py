"""A lab's network: one bridge with a subnet of its own, and what can go wrong on it.

Nodes reach each other and the host's own address on the bridge, and nothing else: no node has a
default route. A lab is numbered; everything on the host that belongs to it has the number in its
name: bridge `lfN`, subnet 10.213.N.0/24, nftables table `bridge lfN`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab.commands import call
from lab.errors import LabError
from lab.ledger import Ledger

NUMBERS = range(1, 251)


def free_number(taken: Iterable[str]) -> int:
    """A number that no lab has and whose subnet and bridge nothing on this box uses."""
    names = set(taken)
    routes = call("ip", "-4", "route", "show", "table", "all").stdout
    for number in NUMBERS:
        used = f"10.213.{number}." in routes or Path(f"/sys/class/net/lf{number}").exists()
        if not used and f"lf{number}" not in names:
            return number
    raise LabError("250 labs are open on this box; run: python -m lab clean")


class Network:
    """The bridge of one lab."""

    def __init__(self, number: int, ledger: Ledger) -> None:
        self.bridge = f"lf{number}"
        self.gateway = f"10.213.{number}.1"
        # Nobody has this one: what asks there waits until it gives up.
        self.silent_address = f"10.213.{number}.254"
        self._prefix = f"10.213.{number}"
        self._ledger = ledger
        self._cuts: list[tuple[str, str]] = []

    def address(self, index: int) -> str:
        """The address of the lab's node number `index`, counted from 1."""
        return f"{self._prefix}.{10 + index}"

    def make(self) -> None:
        """Make the bridge and give the host its address on it."""
        self._ledger.note("link", self.bridge)
        call("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        # Duplicate address detection would keep the bridge busy for a second.
        Path(f"/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6").write_text("1")
        call("ip", "address", "add", f"{self.gateway}/24", "dev", self.bridge)
        call("ip", "link", "set", self.bridge, "up")

    def partition(self, left: list[str], right: list[str]) -> None:
        """Drop every frame between the links of two groups, in both directions, silently.

        The host's own side is named by the bridge.
        """
        self._cuts += [(a, b) for a in left for b in right]
        self._write_cuts()

    def heal(self) -> None:
        """End all partitions."""
        self._cuts = []
        self._write_cuts()

    def _write_cuts(self) -> None:
        self._ledger.note("table", f"bridge {self.bridge}")
        rules: dict[str, list[str]] = {"forward": [], "input": [], "output": []}
        for one, other in [pair for a, b in self._cuts for pair in ((a, b), (b, a))]:
            if one == self.bridge:
                rules["output"].append(f'oifname "{other}" drop')
            elif other == self.bridge:
                rules["input"].append(f'iifname "{one}" drop')
            else:
                rules["forward"].append(f'iifname "{one}" oifname "{other}" drop')
        chains = [
            "\n".join(
                [f"chain {hook} {{ type filter hook {hook} priority 0;", *dict.fromkeys(lines), "}"]
            )
            for hook, lines in rules.items()
        ]
        table = f"table bridge {self.bridge}"
        # Replaced in one transaction: no frame slips through between two states.
        body = [f"{table} {{", *chains, "}"] if self._cuts else []
        call("nft", "-f", "-", input="\n".join([table, f"delete {table}", *body, ""]))


class Link:
    """One node's cable, by the name of its end on the host; the node's end is `host0`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def plug(self, plugged: bool) -> None:
        """Pull the cable or put it back. What is sent meanwhile vanishes; nobody is told."""
        call("ip", "link", "set", self.name, "up" if plugged else "down")

    def shape(self, init: int, rate: str | None, latency: str | None = None) -> None:
        """Limit both directions to a rate as tc(8) writes it ("100mbit"); None lifts the limit.

        `init` is the host's number of a process in the node. `latency` ("20ms") delays both
        directions; it needs netem, which not every kernel has, and is a LabError without it.
        """
        inside = ["nsenter", "-t", str(init), "-n", "tc"]
        for tool, link in ((["tc"], self.name), (inside, "host0")):
            call(*tool, "qdisc", "delete", "dev", link, "root", check=False)
            if latency:
                delay = ["netem", "delay", latency, *(["rate", rate] if rate else [])]
                add = call(*tool, "qdisc", "add", "dev", link, "root", *delay, check=False)
                if add.returncode:
                    raise LabError("this kernel has no netem (sch_netem): no link can be delayed")
            elif rate:
                bucket = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
                call(*tool, "qdisc", "add", "dev", link, "root", *bucket)
