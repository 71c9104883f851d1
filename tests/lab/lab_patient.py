"""A node of the lab on which things are broken, and what doctor says about it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lab import Node

PROGRAM = "/opt/llamaforge/current/bin/llamaforge"
"""Called by its full path, since one of the things to break is the link to it."""
Finding = dict[str, Any]


class Cause(NamedTuple):
    """One thing to break."""

    code: str
    """Of the check that has to name it."""
    about: str
    """What it has to name."""
    breaks: str
    """Lines of bash."""
    severity: str = "error"
    repairs: str = ""
    """Lines of bash, where what doctor prints can't be run in a lab."""


class Patient:
    """A node with the service, seen through doctor."""

    def __init__(self, node: Node, peer: str = "") -> None:
        self.node = node
        self.peer = peer

    def ask(self, *codes: str, peer: str = "", user: str | None = None) -> list[Finding]:
        """Doctor's findings that are not ok, for some checks; checks its exit code, too."""
        only = [word for code in dict.fromkeys(codes) for word in ("--only", code)]
        peers = ["--peer", peer or self.peer] if peer or self.peer else []
        command = [PROGRAM, "doctor", "--json", *only, *peers]
        done = self.node.run(*command, check=False, timeout=120, user=user)
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        said = json.loads(done.stdout)
        codes_of = {"ok": 0, "note": 0, "warning": 1, "error": 3}
        assert done.returncode == said["exit_code"] == codes_of[said["worst"]]
        return [found for found in said["findings"] if found["severity"] != "ok"]

    def break_all(self, causes: Sequence[Cause]) -> list[Finding]:
        """Breaks everything, and asks doctor once; each cause must be named."""
        for cause in causes:
            self.node.shell(cause.breaks)
        found = self.ask(*(cause.code for cause in causes))
        named = {(f["code"], f["about"], f["severity"]) for f in found}
        missed = [c[:2] for c in causes if (c.code, c.about, c.severity) not in named]
        assert not missed, f"{missed} not named in {json.dumps(found, indent=1)}"
        return found

    def mend(self, found: Iterable[Finding]) -> None:
        """Runs the commands that doctor printed, each once, restarts last."""
        lines = dict.fromkeys(line for f in found for line in f["fix"])
        for line in sorted(lines, key=lambda line: line.startswith("systemctl restart")):
            self.node.shell(line, timeout=60)

    def mends(self, causes: Sequence[Cause]) -> None:
        """Breaks everything, runs exactly what doctor printed, and finds nothing left."""
        keys = {(cause.code, cause.about) for cause in causes}
        found = self.break_all(causes)
        self.mend(f for f in found if (f["code"], f["about"]) in keys)
        again = self.ask(*(cause.code for cause in causes))
        left = [f for f in again if (f["code"], f["about"]) in keys or f["severity"] != "note"]
        assert left == [], f"still there: {json.dumps(left, indent=1)}"

    def names(self, causes: Sequence[Cause]) -> None:
        """Breaks everything, repairs it by hand, and finds nothing left."""
        self.break_all(causes)
        for cause in causes:
            self.node.shell(cause.repairs)
        codes = [cause.code for cause in causes]
        left = [f for f in self.ask(*codes) if (f["code"], f["about"]) in {c[:2] for c in causes}]
        assert left == [], f"still there: {json.dumps(left, indent=1)}"

    def setting(self, *lines: str) -> None:
        """Adds lines to the worker's settings file."""
        text = shlex.quote("".join(f"{line}\n" for line in lines))
        self.node.shell(f"printf %s {text} >> /etc/llamaforge/worker.conf")

    def reaches(self, address: str, port: int) -> bool:
        """Whether a TCP connection from here opens."""
        script = f"exec 3<>/dev/tcp/{address}/{port}"
        return self.node.run("timeout", "1", "bash", "-c", script, check=False).returncode == 0
