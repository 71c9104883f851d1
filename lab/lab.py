"""A lab: one network, its nodes, and the promise that nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import uuid
from types import TracebackType

from lab import requirements
from lab.builder import Builder
from lab.cgroups import Cgroups
from lab.disk import Base, Disk, scratch_of
from lab.errors import LabError
from lab.image import STORE, layers, say
from lab.janitor import watch
from lab.ledger import Ledger, Process, claiming, forget_folder, ledgers
from lab.machine import Machine
from lab.network import Network, free_number
from lab.node import Node
from lab.teardown import clean, take_down


class Lab:
    """An open lab. Use it in a `with` statement, or call `close`."""

    def __init__(self, number: int, ledger: Ledger, janitor: subprocess.Popen[bytes]) -> None:
        self.name = ledger.name
        self.network = Network(number, ledger)
        self.gateway = self.network.gateway
        self.nodes: dict[str, Node] = {}
        self._ledger = ledger
        self._janitor = janitor
        self._folder = scratch_of(self.name)
        self._base = Base(self._folder, ledger)
        self._builder = Builder(self.name, STORE / f"building-{self.name}", self._base, ledger)
        self._listed: set[str] = set()

    @classmethod
    def open(cls) -> Lab:
        """Claim a number, make the bridge, and have a janitor watch over us.

        Labs whose owner died without a janitor are taken down first. Raises LabError naming what
        this box lacks.
        """
        requirements.require()
        try:
            clean()
        except LabError as error:
            say(str(error))  # a dead lab that can't be removed is no reason not to open another
        with claiming():
            number = free_number(ledger.name for ledger in ledgers())
            ledger = Ledger(f"lf{number}")
            owner = Process.of(os.getpid())
            assert owner is not None
            ledger.begin(owner)
        lab = cls(number, ledger, watch(ledger.name, owner))
        try:
            lab._make()
        except BaseException:
            lab.close()
            raise
        return lab

    def _make(self) -> None:
        self._ledger.note("folder", self._folder)
        self._ledger.note("folder", self._builder.folder)
        self._folder.mkdir(mode=0o755)
        self.network.make()
        self._base.make()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self,
        name: str,
        image: str = "bare",
        cpu: float | None = None,
        memory: int | str | None = None,
        rate: str | None = None,
        hosts: bool = True,
    ) -> Node:
        """Make a node's disk; `boot` it next.

        `image` is "bare", a strange machine with Python, or "installed", one with the product in
        /opt and the service not set up. `cpu` in cores, `memory` in bytes or "2G", `rate` as tc
        writes it. Without `hosts`, its /etc/hosts lists nobody and its name server never answers.
        """
        if name in self.nodes or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise LabError(f"{name!r} is taken or no host name (a-z, 0-9 and -)")
        index = len(self.nodes) + 1
        if index > 200:
            raise LabError("a lab has room for 200 nodes")
        disk = Disk(self._folder / name, self._ledger)
        machine_name = f"{self.name}-{index}"
        groups = Cgroups(machine_name)
        address = self.network.address(index)
        disk.make(
            [*layers(image, self._builder), self._base.root], self._seed(name, address, hosts)
        )
        machine = Machine(machine_name, name, disk.root, self.network.bridge, groups, self._ledger)
        machine.note()
        node = Node(self, name, address, machine, disk)
        node.throttle(cpu)
        node.limit_memory(memory)
        node.shape(rate)
        self.nodes[name] = node
        if hosts:
            self._listed.add(name)
        self._write_hosts()
        return node

    def build(self) -> None:
        """Build the installed image where it is not built, so that the next `add` is quick."""
        layers("installed", self._builder)

    def _seed(self, name: str, address: str, hosts: bool) -> dict[str, str]:
        network = f"[Match]\nName=host0\n\n[Network]\nAddress={address}/24\n"
        network += "LinkLocalAddressing=no\nIgnoreCarrierLoss=yes\nConfigureWithoutCarrier=yes\n"
        # With entries for everybody a name server is asked about nobody, and refuses at once.
        server = "127.0.0.1" if hosts else self.network.silent_address
        return {
            "etc/hostname": f"{name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
            "etc/machine-id": f"{uuid.uuid4().hex}\n",
            "etc/resolv.conf": f"nameserver {server}\n",
            "etc/systemd/network/10-lab.network": network,
        }

    def _write_hosts(self) -> None:
        fleet = "".join(f"{node.address} {node.name}\n" for node in self.nodes.values())
        fleet += f"{self.gateway} lab-host\n"
        for name in self._listed:
            self.nodes[name].write("/etc/hosts", f"127.0.0.1 localhost\n{fleet}")

    def partition(self, left: list[Node], right: list[Node]) -> None:
        """Cut two groups of nodes off from each other, silently; further calls cut more."""
        self.network.partition(
            [node.machine.link for node in left], [node.machine.link for node in right]
        )

    def heal(self) -> None:
        """End all partitions."""
        self.network.heal()

    def boot(self, *nodes: Node) -> None:
        """Boot several nodes at the same time; all of them when none is named."""
        chosen = nodes or tuple(node for node in self.nodes.values() if not node.alive)
        for node in chosen:
            node.start()
        for node in chosen:
            node.wait_booted()

    def close(self) -> None:
        """Take everything down. Raises LabError naming what could not be."""
        try:
            for node in self.nodes.values():
                node.power_cut()
                node.end_children()
        finally:
            try:
                take_down(self._ledger)
            finally:
                forget_folder()
                self._dismiss()

    def _dismiss(self) -> None:
        assert self._janitor.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._janitor.stdin.close()
        self._janitor.wait(30)
