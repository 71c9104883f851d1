"""Checks run side by side; one that hangs, breaks or can't look is a finding and no end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from doctor_machine import FakeMachine

from llamaforge.doctor.check import Check
from llamaforge.doctor.examine import examine
from llamaforge.doctor.finding import (
    EXIT_CODES,
    Finding,
    Severity,
    error,
    note,
    warning,
    worst,
)
from llamaforge.doctor.machine import CantLook, Hung, Machine
from llamaforge.doctor.subject import Subject

LATE = threading.Event()


def check(code: str, look: object, seconds: float = 20.0) -> Check:
    return Check(code=code, title=code.lower(), sees="x", fix="y", look=look, seconds=seconds)  # type: ignore[arg-type]


def _hangs(machine: Machine, subject: Subject) -> Iterator[Finding]:
    LATE.wait()
    yield note("", "never")


def _breaks(machine: Machine, subject: Subject) -> Iterator[Finding]:
    yield error("first", "this was found")
    raise ZeroDivisionError("oops")


def _blind(machine: Machine, subject: Subject) -> Iterator[Finding]:
    raise CantLook("only root")
    yield


def _hung(machine: Machine, subject: Subject) -> Iterator[Finding]:
    raise Hung("/mnt/data")
    yield


def _well(machine: Machine, subject: Subject) -> Iterator[Finding]:
    yield from ()


def test_every_way_of_ending_is_a_finding(machine: FakeMachine) -> None:
    checks = [
        check("LF1", _hangs, 0.0),
        check("LF2", _breaks),
        check("LF3", _blind),
        check("LF4", _hung),
        check("LF5", _well),
    ]
    found = examine(machine, Subject(machine, (), {}), checks)
    LATE.set()
    said = {(f.code, f.severity): f.seen for f in found}
    assert "did not end within 0 s" in said["LF1", Severity.WARNING]
    assert said["LF2", Severity.ERROR] == "this was found"
    assert "ZeroDivisionError: oops" in said["LF2", Severity.WARNING]
    assert said["LF3", Severity.NOTE] == "could not look: only root"
    assert "/mnt/data does not answer" in said["LF4", Severity.WARNING]
    assert said["LF5", Severity.OK] == "nothing found"
    assert found[0].severity is Severity.ERROR
    assert found[-1].severity is Severity.OK


def test_root_needs_no_sudo(machine: FakeMachine) -> None:
    def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
        yield warning("x", "y", "sudo a", "echo b | sudo tee c")

    subject = Subject(machine, (), {})
    (finding,) = examine(machine, subject, [check("LF1", look)])
    assert finding.fix == ("a", "echo b | tee c")
    machine.uid = 1000
    (finding,) = examine(machine, subject, [check("LF1", look)])
    assert finding.fix == ("sudo a", "echo b | sudo tee c")


def test_the_exit_code_is_that_of_the_worst() -> None:
    rising = [note("", ""), warning("", ""), error("", "")]
    assert [EXIT_CODES[worst(rising[:n])] for n in range(4)] == [0, 0, 1, 3]
