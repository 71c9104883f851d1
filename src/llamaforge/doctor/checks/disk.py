"""LF109: there is room for state, cache, models and the journal.

A checkpoint that finds no room is not written, and a cache that is full makes jobs fail.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, warning
from llamaforge.doctor.machine import Hung, Machine, Space
from llamaforge.doctor.subject import Subject

FULL = 1 << 30
"""Bytes of free space below which nothing can be trained."""
LOW = 10 << 30
"""Bytes of free space below which a model of some size does not fit any more."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at each file system once."""
    seen: set[tuple[int, int]] = set()
    cache = subject.get("HF_HOME")
    folders = [*subject.cache_dirs, *subject.state_dirs, *([cache] if cache else []), "/var/log"]
    for folder in folders:
        try:
            space = machine.space(folder)
        except Hung:
            continue  # LF110 says so
        if space is None or (space.total, space.free) in seen or space.total == 0:
            continue
        seen.add((space.total, space.free))
        yield from _judge(machine, folder, space, is_ours=folder in subject.cache_dirs)


def _judge(machine: Machine, folder: str, space: Space, *, is_ours: bool) -> Iterator[Finding]:
    """One file system. Only our own cache may be thinned out: a model's has links into itself."""
    where = shlex.quote(folder)
    if space.files and space.free_files < 1000:
        seen = f"the file system of {folder} has {space.free_files} of {space.files} inodes left"
        yield error(folder, seen, f"sudo du --inodes -xS {where} | sort -n | tail")
    if space.free >= LOW:
        return
    used = machine.run("du", "-sxB1", folder, seconds=5).out.split()
    holds = f"; {folder} itself holds {_text(int(used[0]))}" if used and used[0].isdigit() else ""
    seen = f"{_text(space.free)} of {_text(space.total)} are free where {folder} is{holds}"
    fix = (f"sudo find {where} -xdev -type f -atime +7 -delete",) if is_ours else ()
    report = error if space.free < FULL else warning
    yield report(folder, seen, *fix, f"sudo du -xhd2 {where} | sort -h | tail")


def _text(size: int) -> str:
    """A number of bytes in a unit that a person reads."""
    unit = next((u for u in (30, 20) if size >= 1 << u), 10)
    return f"{size / (1 << unit):.1f} {({30: 'GiB', 20: 'MiB', 10: 'KiB'})[unit]}"


CHECK = Check(
    code="LF109",
    title="Disk",
    sees="less than 10 GiB (warning) or 1 GiB (error), or no inodes, are free for the cache, the "
    "state, the model cache or the logs; says how much the cache holds",
    fix="deletes what the cache has not used for a week; otherwise shows the largest folders",
    look=look,
)
