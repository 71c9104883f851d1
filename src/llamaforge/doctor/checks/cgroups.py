"""LF403: limits of the unit are felt: the kernel has the memory and cpu controllers.

Some boards boot with the memory controller off; systemd then accepts MemoryMax and nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, note, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

ENABLE = ("sudo sed -i '1s/$/ cgroup_enable=memory cgroup_memory=1/' {file}", "sudo reboot")
LINES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
"""The kernel's command line on boards that boot without GRUB."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks for the memory controller."""
    listed = machine.read("/sys/fs/cgroup/cgroup.controllers")
    if listed is None and not machine.has("/sys/fs/cgroup"):
        return
    has = "memory" in listed.split() if listed is not None else _v1(machine)
    if has:
        return
    limit = subject.unit["MemoryMax"]
    report = warning if limit.isdecimal() else note
    file = next((name for name in LINES if machine.has(name)), "")
    fix = (
        tuple(line.format(file=file) for line in ENABLE)
        if file
        else ("sudo grubby --update-kernel=ALL --args=cgroup_enable=memory",)
    )
    seen = "the kernel has no memory controller: MemoryMax of the unit has no effect"
    yield report("memory controller", seen, *fix)


def _v1(machine: Machine) -> bool:
    return machine.has("/sys/fs/cgroup/memory")


CHECK = Check(
    code="LF403",
    title="Resource limits",
    sees="the kernel runs without the memory controller of cgroups",
    fix="turns it on at the next boot",
    look=look,
)
