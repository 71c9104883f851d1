"""A plan and what came of it, for people and as JSON."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from llamaforge.service.apply import ASIDE, Act, Prepared, Step

_SAID = {
    Act.WRITE: "wrote {path}",
    Act.KEEP: "kept {path}: somebody edited it",
    Act.ASIDE: "kept {path}: somebody edited it; the new version is {path}" + ASIDE,
    Act.REMOVE: "removed {path}: no longer needed",
    Act.LEAVE: "kept {path}: no longer needed, but somebody edited it; remove it yourself",
}


def lines(prepared: Prepared) -> Iterator[str]:
    """One line for each file that is not as it was."""
    for step in prepared.steps:
        if step.act in _SAID and not (step.act is Act.REMOVE and step.before is None):
            yield _SAID[step.act].format(path=step.path)


def dry_run(prepared: Prepared) -> Iterator[str]:
    """Every file with a diff, then every command."""
    for step in prepared.steps:
        yield f"{step.act.value:>6}  {step.path}{_mode(step)}"
        yield from _difference(step)
    for command in prepared.plan.commands:
        skipped = command.needs_systemd and not prepared.facts.running
        yield f"   run  {' '.join(command.words)}" + (" (not here: no systemd)" if skipped else "")


def as_json(prepared: Prepared) -> dict[str, Any]:
    """The same as data."""
    return {
        "systemd": prepared.facts.systemd,
        "files": [
            {
                "path": step.path,
                "act": step.act.value,
                "mode": f"{step.file.mode:04o}" if step.file else None,
                "content": None if not step.file or step.file.secret else step.file.content,
            }
            for step in prepared.steps
        ],
        "commands": [list(command.words) for command in prepared.plan.commands],
    }


def _mode(step: Step) -> str:
    return f"  ({step.file.mode:04o})" if step.file and step.file.mode != 0o644 else ""


def _difference(step: Step) -> Iterator[str]:
    if step.act in (Act.SAME, Act.KEEP, Act.LEAVE):
        return
    if step.file is not None and step.file.secret:
        yield f"        (secret, {len(step.file.content.encode())} bytes)"
        return
    if step.file is not None and step.file.mode & 0o111 and step.before is None:
        yield f"        (a program of {len(step.file.content.splitlines())} lines)"
        return
    before = (step.before or "").splitlines()
    after = (step.file.content if step.file else "").splitlines()
    for line in difflib.unified_diff(before, after, lineterm="", n=2):
        if not line.startswith(("---", "+++", "@@")):
            yield f"        {line}"
