"""A node's control groups on the host: where its processes are found, slowed, frozen and ended.

Hosts with version 1 have one tree per controller: a group of the node's name is made in each, and
inside the node they are made writable, so that limits in its units really hold. Hosts with
version 2 have one tree, and nspawn hands a part of it to the node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from lab.errors import LabError

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000

# Controllers whose limits the node's own systemd sets; the others only group its processes.
_LIMITS = ("cpu", "cpuacct", "memory", "pids", "cpuset")


def unified() -> bool:
    """Whether this box has version 2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def _hierarchies() -> dict[str, Path]:
    """Controller, or name of a tree without one, to where it is mounted (version 1)."""
    found = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        path = Path(where)
        if kind not in ("cgroup", "cgroup2") or path.parent != ROOT:
            continue
        controllers = [word for word in options.split(",") if (ROOT / word).exists()]
        found.update(dict.fromkeys(controllers or [path.name], path))
    return found


class Cgroups:
    """The groups of one node, all of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        if unified():
            self.folders = [ROOT / name]
        else:
            wanted = {*_LIMITS, "freezer", "systemd", "unified"}
            found = {path for name, path in _hierarchies().items() if name in wanted}
            self.folders = sorted(path.resolve() / name for path in found)

    def make(self) -> None:
        """Make all groups, empty and without limits."""
        if unified():
            # On a box with systemd they are on already.
            with contextlib.suppress(OSError):
                (ROOT / "cgroup.subtree_control").write_text("+cpu +memory +pids +cpuset")
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            if folder.parent.name == "cpuset":
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (folder / setting).write_text((folder.parent / setting).read_text())

    def _folder(self, controller: str) -> Path:
        if unified():
            return self.folders[0]
        for folder in self.folders:
            if controller in folder.parent.name.split(","):
                return folder
        raise LabError(f"this box has no cgroup controller {controller!r}")

    def joined_by_commands(self) -> list[Path]:
        """The groups of a command that is run inside the node."""
        if not unified():
            # nspawn makes the node's own root of systemd's trees below ours.
            payloads = [folder / "payload" for folder in self.folders]
            return [payload if payload.exists() else payload.parent for payload in payloads]
        # Version 2 allows no process in a group whose children have controllers.
        leaf = self.folders[0] / "commands"
        leaf.mkdir(exist_ok=True)
        return [leaf]

    def unlocking(self) -> str:
        """Shell lines that a node's first process runs so that its own limits work."""
        if unified():
            return ""
        names = {folder.parent.name for folder in self.folders}
        names &= {*_LIMITS, "cpu,cpuacct"}
        return "".join(
            f"mount -o remount,bind,rw /sys/fs/cgroup/{name}; " for name in sorted(names)
        )

    def set_cpu(self, cores: float | None) -> None:
        """Let the node have so many cores at most, 0.25 a quarter of one; None lifts that."""
        quota = None if cores is None else max(1000, int(cores * PERIOD_US))
        if unified():
            (self.folders[0] / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")
            return
        folder = self._folder("cpu")
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota or -1))

    def set_memory(self, size: int | str | None) -> None:
        """Let the node have so many bytes at most (or "512M"); None lifts that."""
        if unified():
            (self.folders[0] / "memory.max").write_text(str(size or "max"))
        else:
            (self._folder("memory") / "memory.limit_in_bytes").write_text(str(size or -1))

    def freeze(self, frozen: bool, seconds: float = 10) -> None:
        """Stop or continue every process of the node at once; returns when it is so."""
        folder = self._folder("freezer")
        file, word = (
            (folder / "cgroup.freeze", "01"[frozen])
            if unified()
            else (folder / "freezer.state", "FROZEN" if frozen else "THAWED")
        )
        file.write_text(word)
        deadline = time.monotonic() + seconds
        while not self._settled(folder, frozen):
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} is not {'frozen' if frozen else 'thawed'} yet")
            time.sleep(0.02)

    @staticmethod
    def _settled(folder: Path, frozen: bool) -> bool:
        if unified():
            return f"frozen {int(frozen)}" in (folder / "cgroup.events").read_text()
        return (folder / "freezer.state").read_text().strip() == ("FROZEN" if frozen else "THAWED")

    def kill(self) -> None:
        """End every process of the node at once, as a power cut does."""
        for folder in self.folders:
            kill_group(folder)


def _inside(folder: Path) -> list[Path]:
    """A group and all groups below it, deepest first."""
    return [Path(where) for where, _, _ in os.walk(folder, topdown=False)]


def _processes(folder: Path) -> set[int]:
    pids: set[int] = set()
    for group in _inside(folder):
        with contextlib.suppress(OSError):
            pids |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    return pids


def kill_group(folder: Path, seconds: float = 10) -> None:
    """Kill everything in a group and below, and wait until it is gone.

    Raises LabError when something survives, which only a process stuck in the kernel does.
    """
    # A frozen process dies only once it is thawed; with version 1 that is another tree's matter.
    for state in ROOT.glob(f"*/{folder.name}/freezer.state"):
        with contextlib.suppress(OSError):
            state.write_text("THAWED")
    deadline = time.monotonic() + seconds
    # A process that a name space hides from us has number 0 here; its init takes it along.
    while pids := _processes(folder) - {0, os.getpid()}:
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(pids)} in {folder} don't end")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove_group(folder: Path, seconds: float = 10) -> None:
    """Kill what is in a group and remove it with all groups below it."""
    deadline = time.monotonic() + seconds
    while folder.exists():
        kill_group(folder)
        for group in _inside(folder):
            with contextlib.suppress(OSError):
                group.rmdir()
        if folder.exists():
            if time.monotonic() > deadline:
                raise LabError(f"the control group {folder} can't be removed")
            time.sleep(0.05)
