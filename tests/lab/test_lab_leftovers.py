"""Whatever ends a lab, nothing of it stays: its owner ends in all ways that a process can."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.ledger import FOLDER, Ledger, Process

ROOT = Path(__file__).resolve().parents[2]

# A lab in the middle of things, with all that it can make. What happens next is on its input.
OWNER = """
import json, os, sys
from lab import Lab

with Lab.open() as lab:
    one, two = lab.add("one", cpu=0.5, memory="1G", rate="100mbit"), lab.add("two")
    lab.boot()
    one.spawn("sleep", "1000")
    lab.partition([one], [two])
    two.power_cut()
    two.boot()
    one.run("systemctl", "reboot", check=False)
    one.machine.wait_off(20)
    one.boot()
    one.freeze()
    pids = [int(pid) for node in (one, two) for group in node.machine.groups.folders
            for pid in (group / "cgroup.procs").read_text().split()]
    pids += [one.pid, two.pid, lab._janitor.pid]
    print(json.dumps({"name": lab.name, "pids": pids, "janitor": lab._janitor.pid}), flush=True)
    exec(sys.stdin.readline())
"""


def everything() -> set[str]:
    """All that a lab could leave on this box, one line each, as complete listings."""
    run = Path("/run/systemd")
    found = {f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines()}
    found |= {f"link {path.name}" for path in Path("/sys/class/net").iterdir()}
    found |= {f"cgroup {where}" for where, _, _ in os.walk("/sys/fs/cgroup")}
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    found |= {f"table {line}" for line in tables.stdout.splitlines()}
    for folder in (FOLDER, run / "nspawn", run / "nspawn/locks", run / "nspawn/propagate", run):
        found |= {f"file {path}" for path in folder.glob("*")}
    for folder in (Path("/var/tmp"), ROOT / ".lab", Path("/run"), Path("/etc")):
        found |= {f"file {path}" for path in folder.glob("*")}
    rules = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True)
    return found | {f"route {line}" for line in rules.stdout.splitlines()}


class Owner:
    """A process that owns a lab, and what was on this box before it."""

    def __init__(self) -> None:
        self.before = everything()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(self.process.communicate()[1])
        facts = json.loads(line)
        self.name: str = facts["name"]
        self.janitor: int = facts["janitor"]
        self.processes = [found for pid in facts["pids"] if (found := Process.of(pid))]

    def tell(self, line: str) -> str:
        """Go on with a line of Python; what is said on standard error until the end."""
        return self.process.communicate(line + "\n", timeout=60)[1]

    def left(self) -> list[str]:
        """What is new and not another lab's: tests may run beside each other."""
        other = re.compile(rf"\blf(?!{self.name[2:]}\b)\d+|10\.213\.(?!{self.name[2:]}\.)")
        new = sorted(line for line in everything() - self.before if not other.search(line))
        shared = {f"file {FOLDER}", "file /run/systemd/nspawn", f"file {ROOT}/.lab/lock"}
        shared |= {line for line in new if line.startswith("file /run/systemd/nspawn")}
        if any(FOLDER.glob("*")):
            new = [line for line in new if line not in shared]
        return new

    def wait_gone(self, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while Ledger(self.name).path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        while any(found.alive for found in self.processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [found.pid for found in self.processes if found.alive] == []
        assert self.left() == []


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    assert len(owner.processes) > 20
    assert len(owner.left()) > 20, "the listings see what a lab makes"
    yield owner
    if owner.process.poll() is None:
        owner.process.kill()
        owner.process.communicate()
        owner.wait_gone()


def test_a_normal_end_leaves_nothing(owner: Owner):
    assert owner.tell("") == ""
    assert owner.process.returncode == 0
    owner.wait_gone(seconds=0)


def test_an_exception_leaves_nothing(owner: Owner):
    assert "ZeroDivisionError" in owner.tell("1 / 0")
    owner.wait_gone(seconds=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_owner_leaves_nothing(owner: Owner, number: signal.Signals):
    owner.process.send_signal(number)
    owner.process.communicate(timeout=60)
    assert owner.process.returncode == -number
    owner.wait_gone()


def test_when_the_janitor_is_killed_as_well_the_next_lab_cleans_up(owner: Owner):
    os.kill(owner.janitor, signal.SIGKILL)
    owner.process.kill()
    owner.process.communicate(timeout=60)
    dead = Ledger(owner.name).owner()
    assert dead is not None
    assert dead.pid == owner.process.pid
    with Lab.open():
        # The new lab may have got the free name.
        assert Ledger(owner.name).owner() != dead
    owner.wait_gone()


# Begins to build the installed image somewhere else, and is in the middle of it when it says so.
BUILDER = """
import sys
from pathlib import Path
import lab.image, lab.lab

lab.image.STORE = lab.lab.STORE = Path(sys.argv[1])
with lab.lab.Lab.open() as opened:
    print(opened.name, flush=True)
    opened.build()
"""


def test_an_interrupted_build_leaves_no_half_layer(tmp_path: Path):
    store = tmp_path / "store"
    building = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(store)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert building.stdout is not None
    assert building.stderr is not None
    name = building.stdout.readline().strip()
    assert any("Libraries: torch" in line for line in building.stderr)
    assert [path.name for path in store.glob("building-*")] == [f"building-{name}"]
    inside = [
        pid for path in Path("/proc").glob("[0-9]*") if (pid := _in_group(path, f"/{name}-b"))
    ]
    assert inside
    building.kill()
    building.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while Ledger(name).path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [path.name for path in store.iterdir()] == ["lock"]
    assert [found.pid for found in inside if found.alive] == []
    assert not any(str(tmp_path) in line for line in everything())


def _in_group(process: Path, group: str) -> Process | None:
    try:
        inside = group in (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process.of(int(process.name)) if inside else None
