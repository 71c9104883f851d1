"""LF401: there is memory to train in, and the kernel has not killed for want of it.

The unit's own limit and the machine's are different causes: the first shows in the service's
cgroup, the second in the kernel's log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.machine import CantLook, Machine
from llamaforge.doctor.subject import Subject
from llamaforge.spec import oom

LEAST = 2 << 30
"""Bytes below which not even a small model trains."""
KILLED = re.compile(r"(?:Out of memory|oom-kill).*?(?:Killed process |task=|pid=)(\S.*)", re.DOTALL)
OOM_MESSAGE = "fe6faa94e7774663a0da52717891d8ef"
"""systemd's own message about a unit hit by the OOM killer (systemd.journal-fields(7))."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at the cgroup's counters, the journal and the kernel's log, and at what is free."""
    yield from _cgroup(machine, subject)
    yield from _logged(machine, subject)
    yield from _free(machine, subject)


def _cgroup(machine: Machine, subject: Subject) -> Iterator[Finding]:
    kills = oom_kills(machine, subject.unit["ControlGroup"])
    if not kills and subject.unit["Result"] != "oom-kill":
        return
    limit = subject.unit["MemoryMax"]
    unit = subject.unit.name
    if limit.isdecimal():
        shown = f"MemoryMax={int(limit) / 2**30:.1f} GiB"
        more = f"{max(1, int(limit) * 2 >> 20)}M"
        seen = (
            f"the kernel killed processes of {unit} ({kills or 1} times): they reached its {shown}"
        )
        yield error(
            unit,
            seen,
            subject.unit.systemctl("set-property", f"MemoryMax={more}"),
            subject.unit.systemctl("restart"),
        )
    else:
        seen = f"the kernel killed processes of {unit} ({kills or 1} times) for want of memory"
        yield error(
            unit,
            seen,
            "llamaforge train --dry-run …  # says what the job needs",
            subject.unit.systemctl("restart"),
        )


def oom_kills(machine: Machine, group: str) -> int:
    """How often the OOM killer hit a cgroup since it was made, on cgroup v2 or v1."""
    if not group:
        return 0
    names = (
        f"/sys/fs/cgroup{group}/memory.events",
        f"/sys/fs/cgroup/memory{group}/memory.oom_control",
        f"/sys/fs/cgroup/unified{group}/memory.events",
    )
    for name in names:
        count = oom.kills(machine.read(name) or "")
        if count is not None:
            return count
    return 0


def _logged(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Kills of the last day that systemd or the kernel wrote down."""
    unit = subject.unit
    lately = ("--since", "-24h", "--no-pager", "-o", "json")
    if unit.installed:
        done = machine.run(*unit.journal(f"MESSAGE_ID={OOM_MESSAGE}", *lately))
        if count := len(_entries(done.out)):
            seen = f"systemd saw the OOM killer hit {unit.name} {count} times in the last day"
            yield warning(unit.name, seen, unit.show_journal("--since", "-24h"))
    done = machine.run("journalctl", "-k", *lately, seconds=8)
    killed = [text for text in _entries(done.out) if KILLED.search(text)]
    if killed:
        what = KILLED.search(killed[-1])
        assert what is not None
        seen = f"the kernel killed for want of memory in the last day, last: {what[1][:120]}"
        yield warning("kernel", seen, "sudo journalctl -k --since -24h --grep 'oom|Out of memory'")


def _entries(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        try:
            found.append(str(json.loads(line).get("MESSAGE", "")))
        except ValueError:
            continue
    return found


def _free(machine: Machine, subject: Subject) -> Iterator[Finding]:
    known = meminfo(machine.read("/proc/meminfo") or "")
    total, left = known.get("MemTotal", 0), known.get("MemAvailable", 0)
    if not total:
        raise CantLook("/proc/meminfo is not there")
    limit = subject.unit["MemoryMax"]
    if limit.isdecimal() and int(limit) < LEAST:
        seen = f"MemoryMax={int(limit) / 2**30:.2f} GiB leaves the ranks too little to load torch"
        yield warning(
            subject.unit.name,
            seen,
            subject.unit.systemctl("set-property", "MemoryMax=80%"),
        )
    if left < LEAST:
        swap = known.get("SwapFree", 0)
        seen = (
            f"{left / 2**30:.1f} of {total / 2**30:.1f} GiB of memory are free"
            f", and {swap / 2**30:.1f} GiB of swap"
        )
        yield warning("memory", seen, "ps -eo rss,pid,user,comm --sort -rss | head")
    elif not known.get("SwapTotal"):
        yield note(
            "swap",
            f"there is no swap; {left / 2**30:.1f} GiB of memory are free, and what "
            "needs more is killed at once",
        )


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(size) * 1024 for name, size in found}


CHECK = Check(
    code="LF401",
    title="Memory",
    sees="the OOM killer hit the service (cgroup, systemd) or the machine (kernel log) in the last "
    "day; less than 2 GiB of memory are free or allowed; there is no swap",
    fix="raises the unit's limit, or shows who uses the memory",
    look=look,
)
