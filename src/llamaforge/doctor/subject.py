"""What is looked at: the worker's service, its settings as the service sees them, and the fleet."""

from __future__ import annotations

import ipaddress
import os
import shlex
import threading
from collections.abc import Mapping, Sequence

from llamaforge.doctor.contact import Contact
from llamaforge.doctor.host import Host, is_address, port_in
from llamaforge.doctor.interfaces import links, route
from llamaforge.doctor.machine import CantLook, Machine
from llamaforge.doctor.packet_filter import Network
from llamaforge.doctor.unit import Unit, find
from llamaforge.errors import SpecError
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import CONTROL_PORT, PEER_PORT, WorkerSettings, variables

HEALTH = "/health"
PEER_PORTS = 4
"""From the first one on, where a worker is looked for."""
OTHERS = ("HF_HOME", "TRANSFORMERS_CACHE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "XDG_")


class Subject:
    """The worker of this machine.

    Args:
        machine: where to look.
        peers: what `--peer` named: `HOST` or `HOST:PORT`.
        environ: the program's own environment, which counts where no service is installed.
    """

    def __init__(
        self, machine: Machine, peers: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self.unit: Unit = find(machine)
        self.mistakes: list[SpecError] = []
        """What is wrong in the settings file."""
        self.unreadable = ""
        """Why the settings file could not be read; empty where it could."""
        self.values: dict[str, str] = {}
        """Settings by variable."""
        self.sources: dict[str, str] = {}
        """Where each comes from, such as a file's path."""
        self._machine = machine
        self._resolved: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self.peers = [self._peer(peer) for peer in peers]
        self.config = settings_file.PATH
        self._collect(os.environ if environ is None else environ)

    def _peer(self, text: str) -> Host:
        """A peer at the port that its worker has taken, where none was given.

        On the host of torchrun's store that is the next one.
        """
        host = Host.parse(text, 0, "--peer")
        if host.port:
            return host
        for address in self.addresses(host.name)[:1]:
            for port in range(PEER_PORT, PEER_PORT + PEER_PORTS):
                answer = self._machine.ask(address, port, HEALTH, seconds=1.5)
                if answer is not None and "connected" in answer.json():
                    return host._replace(port=port)
                contact = self._machine.connect(address, port, 1.5)
                if contact is Contact.OPEN:  # a worker that turns us away, or somebody else
                    return host._replace(port=port)
                if contact is not Contact.REFUSED:
                    break
        return host._replace(port=PEER_PORT)

    def _collect(self, environ: Mapping[str, str]) -> None:
        """Flag over environment over file, as the worker itself does it.

        In systemd's own order: EnvironmentFile= goes before Environment= (systemd.exec(5)).
        """
        unit = self.unit
        flags = _flags(unit.argv)
        own = unit.environment if unit.installed else _ours(environ)
        self.config = flags.get("config") or own.get("LLAMAFORGE_CONFIG") or settings_file.PATH
        if unit.installed or "LLAMAFORGE_CONFIG" in own:
            self._add(self._from_file(), self.config)
        self._add(own, f"Environment= of {unit.name}" if unit.installed else "the environment")
        for path in unit.environment_files:
            self._add(_lines(self._text(path)), path)
        names = variables(WorkerSettings)
        self._add({names[k]: v for k, v in flags.items() if k in names}, "ExecStart")

    def _add(self, values: Mapping[str, str], source: str) -> None:
        for name, value in values.items():
            if value:
                self.values[name], self.sources[name] = value, source

    def _text(self, path: str) -> str:
        try:
            return self._machine.read(path) or ""
        except CantLook as why:
            self.unreadable = str(why)
            return ""

    def _from_file(self) -> dict[str, str]:
        """The settings file, line by line, so that one bad line hides no other."""
        known = list(variables(WorkerSettings).values())
        values: dict[str, str] = {}
        for number, line in enumerate(self._text(self.config).splitlines()):
            try:
                found = settings_file.parse("\n" * number + line, self.config, known)
            except SpecError as why:
                self.mistakes.append(why)
            else:
                values |= found.values | found.exports
        return values

    # ── settings ──────────────────────────────────────────────────────────────────────────────

    def get(self, name: str) -> str:
        """A setting by its variable; empty where it is not set."""
        return self.values.get(name, "")

    def change(self, variable: str, value: str) -> str:
        """The command that changes a setting where it stands; by default in the settings file."""
        line, file = f"{variable}={value}", shlex.quote(self.config)
        source = self.sources.get(variable, "")
        if source in (self.config, *self.unit.environment_files):
            return f"sudo sed -i 's|\\b{variable}=.*|{line}|' {shlex.quote(source)}"
        if not source and (self.unit.installed or self._machine.has(self.config)):
            exported = "" if variable in variables(WorkerSettings).values() else "export "
            return f"echo {shlex.quote(exported + line)} | sudo tee -a {file}"
        if self.unit.installed:
            return self.unit.systemctl("edit", f" # Environment={line}")
        return f"export {line}"

    @property
    def peer_port(self) -> int:
        """The worker's first port."""
        return port_in(self.get("LLAMAFORGE_PEER_PORT"), PEER_PORT)

    @property
    def master_port(self) -> int:
        """The port of torchrun's store."""
        return port_in(self.get("MASTER_PORT"), 29500)

    @property
    def state_dirs(self) -> list[str]:
        """Folders for state."""
        return _given(self.get("LLAMAFORGE_STATE_DIR")) or self.unit.folders("State")

    @property
    def cache_dirs(self) -> list[str]:
        """Folders for what can be made again."""
        return _given(self.get("LLAMAFORGE_CACHE_DIR")) or self.unit.folders("Cache")

    @property
    def paths(self) -> dict[str, str]:
        """Every absolute path that the service depends on, and what names it."""
        found = {self.unit.working_directory: f"WorkingDirectory of {self.unit.name}"}
        found |= {path: f"--{flag}" for flag, path in _flags(self.unit.argv).items()}
        found |= {value: name for name, value in self.values.items()}
        found |= dict.fromkeys(self.state_dirs, "the state folder")
        found |= dict.fromkeys(self.cache_dirs, "the cache folder")
        return {path: name for path, name in found.items() if path.startswith("/")}

    # ── the fleet ─────────────────────────────────────────────────────────────────────────────

    @property
    def coordinator(self) -> Host | None:
        """The coordinator that the settings name."""
        given = self.get("LLAMAFORGE_COORDINATOR")
        return Host.parse(given, CONTROL_PORT, "LLAMAFORGE_COORDINATOR") if given else None

    @property
    def master(self) -> Host | None:
        """The host of torchrun's store, on the classic way."""
        given = self.get("MASTER_ADDR")
        return Host(given, self.master_port, "MASTER_ADDR") if given else None

    @property
    def hosts(self) -> list[Host]:
        """All machines of the fleet that are known here."""
        return [host for host in (self.coordinator, self.master) if host] + self.peers

    @property
    def servers(self) -> dict[str, Host]:
        """By address, those of the fleet that answer HTTP: peers and coordinator."""
        hosts = self.peers + ([self.coordinator] if self.coordinator else [])
        return {
            address: host for host in reversed(hosts) for address in self.addresses(host.name)[:1]
        }

    def addresses(self, host: str) -> list[str]:
        """The addresses of a host name, asked for once."""
        if is_address(host):
            return [host]
        with self._lock:
            if host not in self._resolved:
                self._resolved[host] = self._machine.addresses(host)
            return self._resolved[host]

    @property
    def fleet(self) -> list[str]:
        """Addresses and networks of the fleet's other machines, for a firewall's rules.

        Who names the peers means these and nobody else; otherwise LLAMAFORGE_ALLOW says who they
        are, besides coordinator and master.
        """
        found = [address for host in self.hosts for address in self.addresses(host.name)[:1]]
        allowed = "" if self.peers else self.get("LLAMAFORGE_ALLOW")
        for word in allowed.replace(",", " ").split():
            found += [word] if _is_network(word) else self.addresses(word)[:1]
        own = {address for _, address in self.own_addresses()}
        networks = {word: ipaddress.ip_network(word, strict=False) for word in found}
        return [
            word
            for word, network in networks.items()
            if word not in own
            and not network.is_loopback
            and not any(_within(network, other) for other in networks.values())
        ]

    def own_addresses(self) -> list[tuple[str, str]]:
        """Interface and address of this machine, without loopback and link-local ones."""
        return [
            (link["ifname"], info["local"])
            for link in links(self._machine)
            for info in link.get("addr_info", ())
            if info.get("scope") == "global"
        ]

    def is_here(self, host: str) -> bool:
        """Whether a name or address is this machine's."""
        own = {address for _, address in self.own_addresses()}
        return any(
            address in own or ipaddress.ip_address(address).is_loopback
            for address in self.addresses(host)
        )

    def own_address(self) -> str:
        """Where others reach this machine: as set, else towards the fleet, else the first one."""
        if given := self.get("LLAMAFORGE_ADDRESS"):
            return given
        for host in self.hosts:
            for address in self.addresses(host.name)[:1]:
                if found := route(self._machine, address).get("prefsrc"):
                    return str(found)
        own = self.own_addresses()
        return own[0][1] if own else "127.0.0.1"


def _given(path: str) -> list[str]:
    return [path] if path else []


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _within(network: Network, other: Network) -> bool:
    """Whether one network is a smaller part of another."""
    if isinstance(network, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return network != other and network.subnet_of(other)
    if isinstance(network, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return network != other and network.subnet_of(other)
    return False


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """`--some-flag VALUE` and `--some-flag=VALUE` of a command line, by `some_flag`."""
    found = {}
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--") and (equals or not following.startswith("-")):
            found[name[2:].replace("-", "_")] = value if equals else following
    return found


def _ours(environ: Mapping[str, str]) -> dict[str, str]:
    """What concerns us in a person's environment."""
    known = set(variables(WorkerSettings).values()) | {"LLAMAFORGE_CONFIG"}
    return {n: v for n, v in environ.items() if n in known or n.startswith(OTHERS)}


def _lines(text: str) -> dict[str, str]:
    """The assignments of an EnvironmentFile."""
    pairs = (line.strip().partition("=") for line in text.splitlines())
    return {n: v.strip("\"'") for n, equals, v in pairs if equals and not n.startswith(("#", ";"))}
