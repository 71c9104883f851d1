"""Runs checks side by side; one that hangs or breaks is a finding of its own, never an end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import msgspec

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, Severity, note, warning
from llamaforge.doctor.machine import CantLook, Hung, Machine
from llamaforge.doctor.subject import Subject

NOTHING = "nothing found"


def examine(machine: Machine, subject: Subject, checks: Sequence[Check]) -> list[Finding]:
    """Runs all checks at once.

    Args:
        machine: where to look.
        subject: what to look at.
        checks: which ones.

    Returns:
        Their findings, worst first; a check without any is there as OK.
    """
    results: dict[str, queue.Queue[list[Finding]]] = {check.code: queue.Queue() for check in checks}
    for check in checks:
        arguments = (machine, subject, check, results[check.code])
        threading.Thread(target=_work, args=arguments, daemon=True, name=check.code).start()
    start = machine.tick()
    found: list[Finding] = []
    for check in checks:
        left = check.seconds - (machine.tick() - start)
        try:
            found += results[check.code].get(timeout=max(0.01, left))
        except queue.Empty:
            seen = (
                f"this check did not end within {check.seconds:.0f} s; something that it asks hangs"
            )
            found.append(
                _signed(check, warning("", seen, f"llamaforge doctor --only {check.code}"))
            )
    return sorted(found, key=lambda f: (-f.severity.weight, f.code))


def _work(
    machine: Machine, subject: Subject, check: Check, result: queue.Queue[list[Finding]]
) -> None:
    result.put(
        [_for(machine, _signed(check, finding)) for finding in _findings(machine, subject, check)]
    )


def _findings(machine: Machine, subject: Subject, check: Check) -> Iterator[Finding]:
    """What the check found, or why it could not look."""
    found = False
    try:
        for finding in check.look(machine, subject):
            found = True
            yield finding
    except CantLook as why:
        yield note("", f"could not look: {why}")
    except Hung as why:
        seen = f"{why.path} does not answer: the file system it is on hangs; LF110 says which"
        yield warning(why.path, seen, "llamaforge doctor --only LF110")
    except Exception as why:  # noqa: BLE001 - one broken check must not hide all others
        seen = f"this check itself is broken: {type(why).__name__}: {why}"
        yield warning("", seen)
    else:
        if not found:
            yield Finding(severity=Severity.OK, seen=NOTHING)


def _signed(check: Check, finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, code=check.code, title=check.title)


def _for(machine: Machine, finding: Finding) -> Finding:
    """Root needs no sudo, and a small machine may not have it."""
    if machine.uid != 0:
        return finding
    fix = tuple(line.replace("sudo ", "") for line in finding.fix)
    return msgspec.structs.replace(finding, fix=fix)
