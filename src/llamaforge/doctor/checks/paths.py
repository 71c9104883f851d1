"""LF102: model, data set, cache and every other path that the settings name are on this node.

Also that the unit's ProtectHome does not hide one from the service: it sees an empty /home then.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.machine import Hung, Machine
from llamaforge.doctor.subject import Subject

_HOMES = ("/home/", "/root/", "/run/user/")
_MADE_BY_SYSTEMD = ("/var/lib/", "/var/cache/", "/run/")
_INPUTS = ("--model", "--dataset", "--heldout")


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at every path but the WorkingDirectory (LF101) and mounts that hang (LF110)."""
    for path, named_by in subject.paths.items():
        if named_by.startswith("WorkingDirectory"):
            yield from _hidden(subject, path, named_by)
            continue
        try:
            status = machine.status(path)
        except Hung:
            continue
        if status is None:
            yield from _missing(subject, path, named_by)
        else:
            yield from _hidden(subject, path, named_by)
    yield from _old_name(subject)


def _missing(subject: Subject, path: str, named_by: str) -> Iterator[Finding]:
    if path.startswith(_MADE_BY_SYSTEMD) and not subject.unit.active:
        return  # systemd makes them at the start
    seen = f"{named_by} is {path}, and nothing is there on this node"
    if named_by in _INPUTS:
        source = next((host.name for host in subject.hosts), "OTHER_NODE")
        yield error(path, seen, f"sudo rsync -a {source}:{shlex.quote(path)} {shlex.quote(path)}")
        return
    owner = shlex.quote(subject.unit.user or "root")
    makes = f"sudo install -d -o {owner} {shlex.quote(path)}"
    report = warning if named_by == "LLAMAFORGE_CACHE_DIR" else error
    yield report(path, seen, makes, subject.unit.systemctl("restart"))


def _hidden(subject: Subject, path: str, named_by: str) -> Iterator[Finding]:
    protect = subject.unit["ProtectHome"]
    if protect in ("yes", "tmpfs", "true") and path.startswith(_HOMES):
        yield error(
            path,
            f"{named_by} is {path}, but ProtectHome={protect} of {subject.unit.name} hides it",
            f"sudo llamaforge worker install --path {shlex.quote(path)}",
        )


def _old_name(subject: Subject) -> Iterator[Finding]:
    if old := subject.get("TRANSFORMERS_CACHE"):
        source = subject.sources["TRANSFORMERS_CACHE"]
        fix = (
            f"sudo sed -i s/TRANSFORMERS_CACHE/HF_HUB_CACHE/ {shlex.quote(source)}"
            if source.startswith("/")
            else subject.unit.systemctl("edit", f" # Environment=HF_HUB_CACHE={old}")
        )
        yield note(
            "TRANSFORMERS_CACHE",
            f"TRANSFORMERS_CACHE={old} (in {source}) is the name of an older time; it is taken for "
            "HF_HUB_CACHE",
            fix,
        )


CHECK = Check(
    code="LF102",
    title="Model, data and cache",
    sees="a path of the settings or of ExecStart (HF_HOME, --model, --dataset, folders for state "
    "and cache) is not on this node, or ProtectHome hides it",
    fix="makes the folder, copies the data from the other node, or opens the path in the unit",
    look=look,
)
