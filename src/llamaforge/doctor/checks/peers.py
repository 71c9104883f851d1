"""LF308: the nodes that `--peer` names can be reached, and run the same versions as this one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping

from llamaforge.doctor.check import Check
from llamaforge.doctor.checks import reachable
from llamaforge.doctor.checks.coordinator import tried
from llamaforge.doctor.contact import Answer
from llamaforge.doctor.finding import Finding, note, warning
from llamaforge.doctor.host import Host
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import HEALTH, Subject
from llamaforge.spec.versions import differ

_VERSIONS = """
import importlib.metadata as m, json, platform
def v(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return ""
print(json.dumps({"llamaforge": v("llamaforge"), "python": platform.python_version(),
                  "torch": v("torch")}))
"""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Asks each peer for its health."""
    if not subject.peers:
        return
    own = own_versions(machine, subject)
    for host in subject.peers:
        unreachable = list(tried(machine, subject, host))
        yield from unreachable
        if not unreachable:
            address = subject.addresses(host.name)[0]
            answer = machine.ask(address, host.port, HEALTH)
            if answer is None:
                yield _stranger(host, subject.own_address())
            else:
                yield from _versions(host, answer, own)


def own_versions(machine: Machine, subject: Subject) -> Mapping[str, str]:
    """What this node runs: as its worker says, else as its Python says; empty if unknown."""
    found = reachable.find(machine, subject, subject.own_address())
    if found and isinstance(versions := found[1].json().get("versions"), dict):
        return versions
    if not subject.unit.python:
        return {}
    done = machine.run(subject.unit.python, "-I", "-c", _VERSIONS, seconds=10)
    try:
        return dict(json.loads(done.out))
    except ValueError:
        return {}


def _stranger(host: Host, own: str) -> Finding:
    """No fault of the fleet: workers answer their coordinator, and who else is allowed."""
    where = f"{host.name}:{host.port}"
    return warning(
        where,
        f"{where} takes the connection and closes it: it does not let this machine in, so its "
        "versions can't be compared; jobs need no such connection",
        f"sudo llamaforge worker install --allow {own}"
        f"  # on {shlex.quote(host.name)}, beside what it allows already",
    )


def _versions(host: Host, answer: Answer, own: Mapping[str, str]) -> Iterator[Finding]:
    where = f"{host.name}:{host.port}"
    said = answer.json()
    theirs = said.get("versions")
    if "connected" not in said:
        seen = f"{where} answers, but is no worker of LlamaForge"
        yield warning(where, seen, f"sudo llamaforge doctor --only LF202  # on {host.name}")
    elif not isinstance(theirs, dict) or not own:
        yield note(where, f"the versions of {host.name} and of this node can't be compared")
    else:
        yield from _drift(host.name, theirs, own)


def _drift(name: str, theirs: Mapping[str, str], own: Mapping[str, str]) -> Iterator[Finding]:
    for what in ("python", "torch", "llamaforge"):
        here, there = own.get(what, ""), str(theirs.get(what, ""))
        if here == there or not here or not there:
            continue
        if not differ(what, here, there):
            yield note(f"{name} {what}", f"{what} is {here} here and {there} on {name}: no matter")
            continue
        older, newer = sorted((here, there), key=_key)
        place = "here" if here == older else f"on {name}"
        python = f" --python python{'.'.join(newer.split('.')[:2])}" if what == "python" else ""
        yield warning(
            f"{name} {what}",
            f"{what} is {here} here and {there} on {name}; a job needs the same on all nodes "
            "for the same numbers",
            f"git pull && sudo ./install.sh{python}  # {place}, in the checkout of LlamaForge",
        )


def _key(version: str) -> list[int]:
    plain = version.partition("+")[0]
    return [int("".join(c for c in part if c.isdigit()) or 0) for part in plain.split(".")]


CHECK = Check(
    code="LF308",
    title="Peers",
    sees="a node that `--peer` names can't be reached, turns this one away, or runs another "
    "version of Python, torch or LlamaForge",
    fix="installs the newer version where the older one is",
    look=look,
)
