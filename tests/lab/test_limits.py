"""Limits and placement that an administrator gives to the unit: seen in the unit, felt by ranks."""

from __future__ import annotations

import re

import pytest
from lab_fleet import Fleet, Job
from lab_service import (
    UNIT,
    active,
    limits_memory,
    main_pid,
    processes,
    ranks,
    show,
    status,
    until_waiting,
)

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 8
"""How long a speed is measured."""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Fleet:
    """A coordinator's host and one worker."""
    head, node = (lab.add(name, image="installed") for name in ("head", "node1"))
    lab.boot()
    fleet = Fleet(head)
    fleet.join(node)
    return fleet


@pytest.fixture
def node(fleet: Fleet) -> Node:
    return fleet.workers[0]


def limited(fleet: Fleet, *options: str) -> None:
    """Installs the service again with other options, and waits for it."""
    (node,) = fleet.workers
    node.run("llamaforge", "worker", "install", *options, timeout=120)
    until_waiting(node, seconds=60)
    fleet.until_all_wait()


def group(node: Node, controller: str) -> str:
    """The folder of the unit's control group, or "" where the box gives it none."""
    name = f"system.slice/{UNIT}.service"
    both = f"/sys/fs/cgroup/{controller}/{name} /sys/fs/cgroup/{name}"
    return node.shell(f"ls -d {both} 2>/dev/null | head -n 1").stdout.strip()


def in_group(node: Node, folder: str, pid: int) -> bool:
    """Whether a process is in a control group; asked inside, since numbers differ outside."""
    return str(pid) in node.run("cat", f"{folder}/cgroup.procs").stdout.split()


# ── priority, NUMA, affinity ──────────────────────────────────────────────────────────────────


def test_priority_processors_and_numa_node_are_those_of_a_rank(fleet: Fleet, node: Node) -> None:
    limited(
        fleet,
        *("--nice", "7", "--cpu-policy", "batch", "--cpus", "0"),
        *("--numa-node", "0", "--numa-policy", "bind"),
    )
    assert show(node, "Nice") == "7"
    assert show(node, "CPUSchedulingPolicy") == "3"
    assert show(node, "CPUAffinity") == "0"
    assert (show(node, "NUMAPolicy"), show(node, "NUMAMask")) == ("bind", "0")
    job = fleet.train("placed", 500_000)
    job.until_step(2)
    (pid,) = ranks(node)
    said = node.read(f"/proc/{pid}/status")
    assert re.search(r"^Cpus_allowed_list:\s+0$", said, re.MULTILINE)
    assert node.run("taskset", "-pc", str(pid)).stdout.strip().endswith("affinity list: 0")
    assert "SCHED_BATCH" in node.run("chrt", "-p", str(pid)).stdout
    assert node.run("ps", "-o", "nice=", "-p", str(pid)).stdout.strip() == "7"
    kinds = {line.split()[1] for line in node.read(f"/proc/{pid}/numa_maps").splitlines()}
    assert "bind:0" in kinds
    threads = node.shell(f"ls /proc/{pid}/task | wc -l").stdout
    on_one = node.shell(f"grep -lE 'Cpus_allowed_list:\\s+0$' /proc/{pid}/task/*/status | wc -l")
    assert on_one.stdout == threads  # every thread of it, torch's own included
    job.cancel()
    gone = ("--nice", "--cpu-policy", "--cpus", "--numa-node", "--numa-policy")
    limited(fleet, *(word for option in gone for word in (option, "")))
    assert show(node, "Nice") == "0"


# ── CPUQuota ──────────────────────────────────────────────────────────────────────────────────


def speed(node: Node, job: Job, pid: int) -> tuple[float, float]:
    """Steps per second, and processor seconds per second of a rank."""
    script = f"cut -d' ' -f14,15 /proc/{pid}/stat; cut -d' ' -f1 /proc/uptime"

    def look() -> tuple[float, float, int]:
        user, system, uptime = node.shell(script).stdout.split()
        return float(uptime), (int(user) + int(system)) / 100, job.steps()[-1]

    begin = look()
    node.wait_for(
        lambda: look()[0] - begin[0] >= SECONDS and job.steps()[-1] >= begin[2] + 4,
        seconds=120,
        what="some steps are done",
    )
    end = look()
    seconds = end[0] - begin[0]
    return (end[2] - begin[2]) / seconds, (end[1] - begin[1]) / seconds


def test_a_job_under_a_quota_is_slower_by_about_that(fleet: Fleet, node: Node) -> None:
    limited(fleet, "--cpu", "25%")
    assert show(node, "CPUQuotaPerSecUSec") == "250ms"
    folder = group(node, "cpu")
    if not folder:
        pytest.skip("this box's control groups limit no processor time inside nodes")
    quota = ("systemctl", "set-property", "--runtime", UNIT)
    node.run(*quota, "CPUQuota=")
    job = fleet.train("slow", 500_000)
    job.until_step(2)
    (pid,) = ranks(node)
    fast, free = speed(node, job, pid)
    node.run(*quota, "CPUQuota=25%")
    assert in_group(node, folder, pid)
    slow, share = speed(node, job, pid)
    assert share < 0.32
    throttled = re.search(r"nr_throttled (\d+)", node.read(f"{folder}/cpu.stat"))
    assert throttled is not None
    assert int(throttled[1]) > 0
    # Others may use this box, too: what is compared is the time that the rank got.
    assert slow / fast == pytest.approx(share / free, rel=0.6)
    assert slow < fast
    job.cancel()
    node.shell("rm -rf /run/systemd/system.control; systemctl daemon-reload")
    limited(fleet, "--cpu", "")


# ── MemoryMax ─────────────────────────────────────────────────────────────────────────────────


def test_a_rank_over_the_memory_limit_is_killed_and_named(fleet: Fleet, node: Node) -> None:
    if not limits_memory(node):
        pytest.skip("this box's control groups limit no memory inside nodes")
    limited(fleet, "--memory", "160M")
    assert show(node, "MemoryMax") == str(160 << 20)
    before = main_pid(node)
    said = fleet.train("large", 10, "--on-node-loss fail").fails()
    named = "rank 0 on node1 was killed by SIGKILL for want of memory"
    assert f"{named}: its service reached MemoryMax=160M" in said
    assert "sudo llamaforge worker install --memory" in said
    assert (active(node), main_pid(node)) == (True, before)
    until_waiting(node)
    assert list(processes(node)) == [before]
    lines = [line for line in node.journal(UNIT, "-n", "40") if "want of memory" in str(line)]
    assert [line["LLAMAFORGE_RANK"] for line in lines] == ["0"]
    assert "MemoryMax=160M" in lines[0]["MESSAGE"]
    found = node.run("llamaforge", "doctor", "--only", "LF401", check=False).stdout
    assert "MemoryMax" in found

    limited(fleet, "--memory", "")
    assert status(node).startswith("waiting")
    fleet.train("large-again", 10).end()
