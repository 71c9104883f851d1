"""LF407 on made-up machines."""

from __future__ import annotations

import sys

import pytest
from doctor_machine import FakeMachine

from llamaforge.doctor.checks import confinement
from llamaforge.doctor.finding import Severity

FILTER = "systemctl show --property=SystemCallFilter"
PROBE = f"{sys.executable} -c from llamaforge import landlock"


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("this kernel has no Landlock (Linux 5.13 and later have it)", "uname -r"),
        ("Landlock is switched off in this kernel: …", "cat /sys/kernel/security/lsm"),
    ],
)
def test_a_kernel_without_it_is_named(machine: FakeMachine, why: str, fix: str) -> None:
    machine.says(PROBE, f"{why}\n")
    (finding,) = machine.look(confinement.CHECK)
    assert finding.severity is Severity.WARNING
    assert why in finding.seen
    assert "key" in finding.seen
    assert finding.fix == (fix,)


def test_a_unit_that_forbids_it_is_named(machine: FakeMachine) -> None:
    machine.says(PROBE, "\n")
    machine.says(FILTER, "read write landlock_create_ruleset\n")
    (finding,) = machine.look(confinement.CHECK)
    assert "landlock_add_rule, landlock_restrict_self" in finding.seen
    assert "60-landlock.conf" in " ".join(finding.fix)


@pytest.mark.parametrize("calls", ["", f"read {confinement.CALLS} write", "~mount reboot"])
def test_a_unit_that_allows_it_is_fine(machine: FakeMachine, calls: str) -> None:
    machine.says(PROBE, "\n")
    machine.says(FILTER, f"{calls}\n")
    assert machine.look(confinement.CHECK) == []
