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
            f"chain {hook} {{ type filter hook {hook} priority 0; " + "; ".join([*lines, "}"])
            for hook, lines in rules.items()
        ]
        table = f"table bridge {self.bridge}"
        # Replaced in one transaction: no frame slips through between two states.
        body = f"{table} {{ {' '.join(chains)} }}" if self._cuts else ""
        call("nft", "-f", "-", input=f"{table}\ndelete {table}\n{body}\n")


class Link:
    """The host's side of one node's cable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def plug(self, plugged: bool) -> None:
        """Pull the cable or put it back. What is sent meanwhile vanishes; nobody is told."""
        call("ip", "link", "set", self.name, "up" if plugged else "down")

    def shape(self, rate: str | None, latency: str | None = None) -> None:
        """Limit what reaches the node and what leaves it to a rate as tc(8) writes it ("100mbit").

        None lifts the limit. `latency` ("20ms") delays what reaches the node; it needs netem,
        which not every kernel has, and is a LabError without it.
        """
        call("tc", "qdisc", "delete", "dev", self.name, "root", check=False)
        call("tc", "qdisc", "delete", "dev", self.name, "ingress", check=False)
        if latency:
            delay = ["root", "netem", "delay", latency, *(["rate", rate] if rate else [])]
            if call("tc", "qdisc", "add", "dev", self.name, *delay, check=False).returncode:
                raise LabError("this kernel has no netem (sch_netem): links can't be delayed here")
        elif rate:
            bucket = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            call("tc", "qdisc", "add", "dev", self.name, "root", *bucket)
        if rate:
            # Queues shape only what goes out; what comes in can be policed at the same rate.
            call("tc", "qdisc", "add", "dev", self.name, "handle", "ffff:", "ingress")
            police = ["police", "rate", rate, "burst", "256kb", "drop"]
            call(
                "tc",
                "filter",
                "add",
                "dev",
                self.name,
                "parent",
                "ffff:",
                "matchall",
                *["action", *police],
            )
