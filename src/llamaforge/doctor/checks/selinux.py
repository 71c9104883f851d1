"""LF402: SELinux lets the service start and work. Untried on a machine that enforces it.

systemd may only start what is labelled as a program; files that were moved from a home keep a
home's label, and the start ends with 203/EXEC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

PROGRAM_LABELS = ("bin_t", "usr_t", "lib_t", "init_exec_t", "unconfined_exec_t")
FOLDER = "/opt/llamaforge"
LABEL = (
    "sudo semanage fcontext -a -t bin_t '/opt/llamaforge/versions/[^/]+/bin(/.*)?'",
    f"sudo restorecon -R {FOLDER}",
)


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at labels and denials, where SELinux is on."""
    mode = (machine.read("/sys/fs/selinux/enforce") or "").strip()
    if mode not in ("0", "1"):
        return
    report = error if mode == "1" else note
    for program in subject.unit.argv[:1]:
        label = machine.run("stat", "-L", "-c", "%C", "--", program).out.strip()
        parts = label.split(":")
        kind = parts[2] if len(parts) > 2 else ""
        if kind and kind not in PROGRAM_LABELS:
            seen = f"{program} has the SELinux label {kind}; systemd may not start it"
            yield report(program, seen, *LABEL)
    denials = _denials(machine)
    if denials:
        seen = f"SELinux denied something {len(denials)} times lately, last: {denials[-1]}"
        yield report(
            "SELinux",
            seen,
            "sudo ausearch -m avc -ts recent | audit2why",
            f"sudo restorecon -R {FOLDER} /var/lib/llamaforge /var/cache/llamaforge",
        )


def _denials(machine: Machine) -> list[str]:
    """What was denied to our processes in the last ten minutes or, without auditd, today."""
    done = machine.run("ausearch", "-m", "avc", "-ts", "recent")
    text = done.out if done.code == 0 else machine.run(
        "journalctl", "_TRANSPORT=audit", "--since", "-24h", "-o", "cat", "--no-pager"
    ).out  # fmt: skip
    lines = [line for line in text.splitlines() if "denied" in line and "llamaforge" in line]
    return [denied(line) for line in lines]


def denied(line: str) -> str:
    """An AVC line in a few words."""
    what = re.search(r"denied\s+\{ ([^}]+) \}", line)
    by = re.search(r'comm="([^"]+)"', line)
    target = re.search(r'(?:path|name)="([^"]+)"', line)
    parts = (by and by[1], what and what[1].strip(), target and target[1])
    return " ".join(part for part in parts if part)


CHECK = Check(
    code="LF402",
    title="SELinux",
    sees="SELinux denied something to LlamaForge, or the program has a label that systemd may not "
    "start",
    fix="gives the files the right labels",
    look=look,
)
