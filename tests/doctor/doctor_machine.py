"""A machine made of a folder and a table of commands, for checks that must not touch this one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llamaforge.doctor.check import Check
from llamaforge.doctor.contact import Answer, Contact
from llamaforge.doctor.examine import examine
from llamaforge.doctor.finding import Finding, Severity
from llamaforge.doctor.machine import MISSING, Done, Machine
from llamaforge.doctor.subject import Subject
from llamaforge.service.places import UNIT

TIMED_OUT = Done(-9, "", "did not end", timed_out=True)
PYTHON = "/opt/llamaforge/current/bin/python"
PROGRAM = "/opt/llamaforge/current/bin/llamaforge"
HEALTHY = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "UnitFileState": "enabled",
    "MainPID": "4711",
    "NRestarts": "0",
    "User": "llamaforge",
    "Group": "llamaforge",
    "WorkingDirectory": "/var/lib/llamaforge",
    "StateDirectory": "llamaforge",
    "CacheDirectory": "llamaforge",
    "ControlGroup": "/system.slice/llamaforge-worker.service",
    "MemoryMax": "infinity",
    "ProtectHome": "yes",
    "ExecStart": "{ path=P ; argv[]=/opt/llamaforge/current/bin/llamaforge worker run ; "
    "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
}
"""What `systemctl show` says of a service that is well."""
STAT = "stat -L -c %F|%a|%U|%G|%s --"
FOLDER = "directory|750|llamaforge|llamaforge|4096"
LINK = {
    "ifname": "eth0",
    "flags": ["BROADCAST", "UP", "LOWER_UP"],
    "mtu": 1500,
    "address": "02:00:00:00:00:01",
    "addr_info": [
        {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "scope": "global"},
    ],
}


class FakeMachine(Machine):
    """A machine on which everything is well until a test breaks it.

    Args:
        root: the folder that stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.uid = 0
        self.clock, self.ticks = 1_700_000_000.0, 0.0
        self.commands: dict[str, Done] = {}
        """By the beginning of the command line; the longest one that fits counts."""
        self.asked: list[str] = []
        self.contacts: dict[tuple[str, int], Contact] = {}
        self.answers: dict[tuple[str, int], Answer] = {}
        self.spoken: dict[tuple[str, int], str] = {}
        """How each server was spoken to: `tls` or `plain`."""
        self.largest = 0
        """Bytes above which requests are lost; 0 for none."""
        self.unit()
        self.says("ip -j addr", json.dumps([LINK]))
        self.says("ip -j route get", json.dumps([{"dev": "eth0", "prefsrc": "10.0.0.1"}]))
        self.says("runuser", "")
        self.says("id -un", "root\n")
        for path in ("/var/lib/llamaforge", "/var/cache/llamaforge"):
            self.stat(path, FOLDER)
        self.says(f"{STAT} /var/lib/llamaforge/identity", code=1)  # it has not joined a fleet
        for path in (PYTHON, PROGRAM):
            self.stat(path, "regular file|755|root|root|100")
        self.says(f"{PYTHON} -I -c", "3.11\n")
        self.says("stat -f", "4096 10000000 20000000 900000 1000000\n")

    def unit(self, **changed: str) -> None:
        """What systemd says of the service, over `HEALTHY`."""
        lines = [f"{name}={value}" for name, value in {**HEALTHY, **changed}.items()]
        self.says(f"systemctl show {UNIT}", "\n".join(lines))

    def says(self, command: str, out: str = "", code: int = 0, err: str = "") -> None:
        """What a command line that begins like this prints."""
        self.commands[command] = Done(code, out, err)

    def hangs(self, command: str) -> None:
        """A command line that begins like this has to be killed."""
        self.commands[command] = TIMED_OUT

    def write(self, name: str, text: str) -> None:
        """A local file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def settings(self, *lines: str) -> None:
        """The worker's settings file."""
        self.write("/etc/llamaforge/worker.conf", "\n".join(lines) + "\n")

    def stat(self, path: str, shown: str) -> None:
        """What `stat` says of a path on any file system: kind|mode|user|group|size."""
        self.says(f"{STAT} {path}", shown)

    def host(self, name: str, address: str) -> None:
        """A name that resolves."""
        self.says(f"getent ahostsv4 {name}", f"{address}  STREAM {name}\n")

    def peer(self, address: str, port: int, body: dict[str, Any] | None, late: float = 0.0) -> None:
        """A server; with a body it answers in JSON, its clock `late` seconds behind."""
        self.contacts[address, port] = Contact.OPEN
        if body is not None:
            date = float(int(self.clock - late))
            self.answers[address, port] = Answer(200, json.dumps(body).encode(), date)

    # ── the seam ──────────────────────────────────────────────────────────────────────────────

    def run(self, *command: str, seconds: float = 5.0, text: str = "") -> Done:
        line = " ".join(command)
        self.asked.append(line)
        fitting = [known for known in self.commands if line.startswith(known)]
        if not fitting:
            return Done(1 if command[0] in ("stat", "getent") else MISSING, "", "not here")
        done = self.commands[max(fitting, key=len)]
        self.ticks += seconds if done.timed_out else 0.0
        return done

    def connect(self, address: str, port: int, seconds: float = 4.0) -> Contact:
        return self.contacts.get((address, port), Contact.SILENT)

    def ask(
        self,
        address: str,
        port: int,
        path: str,
        *,
        padding: int = 0,
        seconds: float = 4.0,
        tls: bool = False,
    ) -> Answer | None:
        self.spoken[address, port] = "tls" if tls else "plain"
        if self.largest and padding > self.largest:
            return None
        return self.answers.get((address, port))

    def now(self) -> float:
        return self.clock

    def tick(self) -> float:
        return self.ticks

    # ── looking ───────────────────────────────────────────────────────────────────────────────

    def look(
        self, check: Check, *peers: str, environ: dict[str, str] | None = None
    ) -> list[Finding]:
        """What one check finds, without its OK."""
        subject = Subject(self, peers, environ or {})
        found = examine(self, subject, [check])
        return [finding for finding in found if finding.severity is not Severity.OK]


def fixes(findings: Iterable[Finding]) -> list[str]:
    """All commands of all findings."""
    return [line for finding in findings for line in finding.fix]
