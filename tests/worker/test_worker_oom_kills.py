from __future__ import annotations

from pathlib import Path

import pytest

from llamaforge.worker.oom_kills import OomKills

UNIT = "system.slice/llamaforge-worker.service"


def box(root: Path, *, unified: bool, limit: str) -> Path:
    """A file system with this process's control group; the folder of that."""
    line = f"0::/{UNIT}" if unified else f"5:cpu,cpuacct:/x\n4:memory:/{UNIT}\n0::/init.scope"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    group = root / "sys/fs/cgroup" / ("" if unified else "memory") / UNIT
    group.mkdir(parents=True)
    (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(limit + "\n")
    return group


def kills(group: Path, count: int, *, unified: bool) -> None:
    name = "memory.events" if unified else "memory.oom_control"
    (group / name).write_text(f"oom 9\noom_kill {count}\n")


@pytest.mark.parametrize("unified", [True, False])
def test_only_kills_from_now_on_count(tmp_path: Path, unified: bool) -> None:
    group = box(tmp_path, unified=unified, limit=str(200 << 20))
    kills(group, 3, unified=unified)
    since = OomKills(tmp_path)
    assert since.why() == ""
    kills(group, 4, unified=unified)
    assert since.why() == "its service reached MemoryMax=200M"
    assert OomKills(tmp_path).why() == ""


@pytest.mark.parametrize(("unified", "limit"), [(True, "max"), (False, "9223372036854771712")])
def test_without_a_limit_of_its_own_the_machine_was_short(
    tmp_path: Path, unified: bool, limit: str
) -> None:
    group = box(tmp_path, unified=unified, limit=limit)
    since = OomKills(tmp_path)
    kills(group, 1, unified=unified)
    assert since.why().startswith("the machine")


def test_a_kernel_that_counts_nothing_says_nothing(tmp_path: Path) -> None:
    assert OomKills(tmp_path).why() == ""
