"""A service as systemd sees it: unit file, drop-ins and present state in one answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from llamaforge.doctor.machine import Machine
from llamaforge.service.places import UNIT

PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "NeedDaemonReload"),
    *("MainPID", "NRestarts", "ExecMainCode", "ExecMainStatus", "StatusText", "FragmentPath"),
    *("ExecStart", "User", "Group", "SupplementaryGroups", "WorkingDirectory", "Environment"),
    *("EnvironmentFiles", "ControlGroup", "MemoryMax", "ProtectHome", "StateDirectory"),
    *("CacheDirectory", "Type"),
)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What systemd says about a service. Make it with `find`."""

    name: str = UNIT
    manager: str = "system"
    """`system`, or `user` for a service of one person's own manager."""
    properties: Mapping[str, str] = {}
    """By systemd's names; empty where there is no systemd."""

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def installed(self) -> bool:
        """Whether there is a unit file."""
        return self["LoadState"] not in ("", "not-found")

    @property
    def active(self) -> bool:
        """Whether it runs and is ready."""
        return self["ActiveState"] in ("active", "reloading")

    @property
    def main_pid(self) -> int:
        """The worker's process id; 0 where it does not run."""
        return int(self["MainPID"] or 0)

    @property
    def user(self) -> str:
        """As whom it runs; empty where that is not known."""
        if not self.installed or self.manager == "user":
            return ""
        return self["User"] or "root"

    @property
    def argv(self) -> list[str]:
        """Program and arguments of ExecStart."""
        found = re.search(r"argv\[\]=(.*?) ; ignore_errors=", self["ExecStart"])
        return split(found[1]) if found else []

    @property
    def environment(self) -> dict[str, str]:
        """Environment= of unit and drop-ins."""
        pairs = (word.partition("=") for word in split(self["Environment"]))
        return {name: value for name, equals, value in pairs if equals}

    @property
    def environment_files(self) -> list[str]:
        """The paths of EnvironmentFile=."""
        return re.findall(r"(/\S+) \(ignore_errors=", self["EnvironmentFiles"])

    @property
    def working_directory(self) -> str:
        """The folder in which it starts; empty where the unit leaves it to systemd."""
        return self["WorkingDirectory"].lstrip("!-")

    @property
    def python(self) -> str:
        """The Python that ExecStart leads to, also behind numactl or taskset; empty if unknown."""
        for word in self.argv:
            name = PurePosixPath(word).name
            if re.fullmatch(r"python[\d.]*", name):
                return word
            if name in ("llamaforge", "torchrun"):
                return str(PurePosixPath(word).parent / "python")
        return ""

    def folders(self, kind: str) -> list[str]:
        """The paths of StateDirectory= or CacheDirectory=.

        Args:
            kind: `State` or `Cache`.
        """
        base = {"State": "/var/lib", "Cache": "/var/cache"}[kind]
        if self.manager == "user":
            return []
        return [f"{base}/{word.partition(':')[0]}" for word in self[f"{kind}Directory"].split()]

    @property
    def control(self) -> str:
        """How a command line for people begins that speaks to this unit's manager."""
        return "systemctl --user" if self.manager == "user" else "sudo systemctl"

    def systemctl(self, verb: str, *more: str) -> str:
        """A command line for people about this unit."""
        return " ".join([self.control, verb, self.name.removesuffix(".service"), *more])

    def journal(self, *words: str) -> tuple[str, ...]:
        """The journalctl command line for this unit."""
        if self.manager == "user":
            return ("journalctl", "--user", "--user-unit", self.name, *words)
        return ("journalctl", "-u", self.name, *words)

    def show_journal(self, *words: str) -> str:
        """The same as a command line for people."""
        lead = [] if self.manager == "user" else ["sudo"]
        return " ".join([*lead, *self.journal(*words)])


def split(text: str) -> list[str]:
    """Words as systemctl prints them; where its quotes don't close, at blanks."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def find(machine: Machine) -> Unit:
    """The worker's service: the system's, else this person's own, else none."""
    system = _show(machine, "system")
    if system.installed or machine.uid == 0:
        return system
    own = _show(machine, "user")
    return own if own.installed else system


def named(machine: Machine, name: str) -> Unit:
    """Another service of this machine."""
    return _show(machine, "system", name)


def _show(machine: Machine, manager: str, name: str = UNIT) -> Unit:
    scope = ["--user"] if manager == "user" else []
    done = machine.run("systemctl", *scope, "show", name, "-p", ",".join(PROPERTIES))
    lines = (line.partition("=") for line in done.out.splitlines()) if done.code == 0 else ()
    properties = {key: value for key, _, value in lines}
    return Unit(name=name, manager=manager, properties=properties)
