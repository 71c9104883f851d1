"""Whatever happens to the coordinator, a job neither notices nor loses anything: it is killed at
every event of a job's life, its machine loses power, its cable is cut, its disk is full."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import lab_ledger as ledger
import pytest
from lab_fleet import COORDINATOR, JOBS, STATE, Fleet, Job
from lab_service import ranks, until_waiting

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 80
SAVE = "--save-steps 10"
DIGESTS = ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained", "steps")
BLIP = 8.0
"""Seconds; far less than the 30 after which a node would be given up."""
SCRIPT = """
import os, time
rank = os.environ["RANK"]
for number in range(400):
    print(f"rank {rank} line {number}", flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    nodes = [lab.add(name, image="installed") for name in ("head", "node1", "node2")]
    lab.boot()
    fleet = Fleet(nodes[0])
    for worker in nodes[1:]:
        fleet.join(worker)
    yield fleet
    for node in nodes:
        node.power_cut()


def train(fleet: Fleet, name: str, *more: str) -> Job:
    return fleet.train(name, STEPS, SAVE, *more)


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> dict[str, Any]:
    """The proof of a run that nothing happened to."""
    proof = train(fleet, "undisturbed").end()
    assert len(proof["generations"]) == 1
    assert proof["guarantee"] == "same numbers"
    return proof


def same(proof: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    assert proof["guarantee"] == "same numbers"


def kill(head: Node) -> None:
    """SIGKILL, in the middle of whatever it does; one that is just being started is waited for."""
    pid = ("systemctl", "show", COORDINATOR, "-P", "MainPID")
    head.wait_for(lambda: head.run(*pid).stdout.strip() != "0", seconds=30, what="it is there")
    head.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", COORDINATOR)


def training(fleet: Fleet) -> dict[str, list[int]]:
    """Process ids of all ranks, by node."""
    return {worker.name: sorted(ranks(worker)) for worker in fleet.workers}


def jobs_called(fleet: Fleet, name: str) -> int:
    """How many jobs of that name the coordinator knows; a name may get a suffix."""
    found = ledger.rows(fleet.head, "SELECT count(*) FROM jobs WHERE id LIKE ?", f"{name}%")
    return int(found[0][0])


def test_killed_at_every_event_of_a_jobs_life(fleet: Fleet, undisturbed: dict[str, Any]) -> None:
    head = fleet.head
    for worker in fleet.workers:
        head.run("llamaforge", "nodes", "cordon", worker.name)
    job = train(fleet, "killed", "--min-nodes 2")
    ledger.until(head, lambda: ledger.state(head, job.name) == "queued", 60, "it is queued")
    kill(head)
    fleet.until_listening()
    assert ledger.state(head, job.name) == "queued"
    for worker in fleet.workers:
        head.run("llamaforge", "nodes", "allow", worker.name)

    ledger.until(head, lambda: "starting" in ledger.states(head, job.name), 60, "it starts")
    kill(head)
    ledger.until(head, lambda: len(job.steps()) >= 1, 120, "its first step")
    there = training(fleet)
    assert all(there.values())
    kill(head)
    ledger.until(head, lambda: len(job.steps()) >= STEPS // 3, 120, "a third of its steps")
    kill(head)
    ledger.until(head, lambda: len(job.checkpoints()) >= 2, 120, "a checkpoint")
    assert training(fleet) == there, "the ranks went on in the same processes"
    kill(head)
    ledger.until(
        head,
        lambda: {"finishing", "done"} & set(ledger.states(head, job.name)),
        180,
        "it is nearly over",
    )
    kill(head)
    proof = job.end()
    same(proof, undisturbed)
    assert len(proof["generations"]) <= 2  # one more where the kill hit while it was starting
    assert jobs_called(fleet, job.name) == 1
    assert ledger.states(head, job.name).count("done") == 1
    numbers = [row[0] for row in ledger.rows(head, "SELECT number FROM events ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1))
    fleet.until_all_wait()


def test_logs_have_no_gap(fleet: Fleet) -> None:
    """A script prints while the coordinator dies twice; every line stands in the log once."""
    head = fleet.head
    head.write(f"{JOBS}/talk/talk.py", SCRIPT)
    run = (
        f"cd {JOBS}/talk && exec llamaforge run --name talk --nodes 2 -- talk.py > ../talk.log 2>&1"
    )
    child = head.spawn("bash", "-c", run)
    ledger.until(head, lambda: ledger.state(head, "talk") == "running", 90, "the script runs")
    for _ in range(2):
        time.sleep(2)
        kill(head)
        fleet.until_listening()
    child.wait(120)
    assert child.returncode == 0, head.read(f"{JOBS}/talk.log")
    lines = head.run("llamaforge", "logs", "talk").stdout.splitlines()
    for rank in range(2):
        said = [int(line.split()[-1]) for line in lines if f"rank {rank} line " in line]
        assert said == list(range(400)), f"rank {rank}"
    shown = head.read(f"{JOBS}/talk.log")
    assert shown.count("rank 0 line 399") == 1, "the one who watched has missed or repeated it"


def test_a_power_cut_of_the_coordinators_host(fleet: Fleet, undisturbed: dict[str, Any]) -> None:
    head = fleet.head
    job = train(fleet, "dark")
    job.until_step(10)
    there = training(fleet)
    head.power_cut()
    assert training(fleet) == there
    head.boot()  # the service starts by itself, and so does the job's account of itself
    ledger.until(head, lambda: ledger.state(head, job.name) == "done", 180, "the job is done")
    assert job.steps() == list(range(1, STEPS + 1))
    head.run("llamaforge", "fetch", job.name, f"{JOBS}/fetched", timeout=120)
    proof = json.loads(head.read(f"{JOBS}/fetched/proof.json"))
    same(proof, undisturbed)
    assert len(proof["generations"]) == 1, "the ranks did not need it"
    assert jobs_called(fleet, job.name) == 1
    fleet.until_all_wait()


def test_a_control_link_that_is_cut_for_a_while(fleet: Fleet, undisturbed: dict[str, Any]) -> None:
    """Only the control port is silent; what the ranks say to each other goes through."""
    head = fleet.head
    job = train(fleet, "blip")
    job.until_step(5)
    there = training(fleet)
    rules = "inet blip { chain in { type filter hook input priority 0; tcp dport 29400 drop; }; }"
    head.shell(f"nft 'add table {rules}'")
    time.sleep(BLIP)
    assert training(fleet) in (there, {name: [] for name in there})  # those may be done by now
    head.shell("nft delete table inet blip")
    proof = job.end()
    same(proof, undisturbed)
    assert len(proof["generations"]) == 1
    assert len(job.events("continues")) == 0
    fleet.until_all_wait()


def test_a_full_disk_pauses_the_job_and_corrupts_nothing(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    """The folder of the jobs is a small disk of its own, and somebody fills it."""
    head = fleet.head
    head.run("systemctl", "stop", COORDINATOR, timeout=60)
    owner = "uid=llamaforge-coordinator,gid=llamaforge,mode=0700"
    head.shell(
        f"mv {STATE}/jobs {STATE}/jobs.kept; mkdir {STATE}/jobs;"
        f" mount -t tmpfs -o size=64m,{owner} jobs {STATE}/jobs"
    )
    try:
        head.run("systemctl", "start", COORDINATOR, timeout=60)
        fleet.until_all_wait()
        job = train(fleet, "full")
        job.until_step(5)
        head.shell(f"dd if=/dev/zero of={STATE}/jobs/filler bs=64k", check=False)
        asked = "SELECT reason FROM jobs WHERE id = ?"
        ledger.until(
            head,
            lambda: "No space left" in ledger.rows(head, asked, job.name)[0][0],
            120,
            "it says that there is no room",
        )
        stood = job.steps()[-1]
        time.sleep(5)
        assert job.steps()[-1] == stood, "it trains although nothing can be kept"
        head.shell(f"rm {STATE}/jobs/filler")
        same(job.end(), undisturbed)
        assert "paused" in ledger.states(head, job.name)
    finally:
        head.run("systemctl", "stop", COORDINATOR, timeout=60, check=False)
        head.shell(f"umount {STATE}/jobs; rmdir {STATE}/jobs; mv {STATE}/jobs.kept {STATE}/jobs")
        head.run("systemctl", "start", COORDINATOR, timeout=60)
    fleet.until_all_wait()


def test_a_full_cache_of_a_worker_is_named_and_costs_no_job(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    """Nothing can be fetched there, so the other node trains alone, to the same numbers."""
    node = fleet.workers[1]
    owner = "uid=llamaforge,gid=llamaforge,mode=0750"
    node.shell(
        "systemctl stop llamaforge-worker;"
        f" mount -t tmpfs -o size=200m,{owner} cache /var/cache/llamaforge;"
        " systemctl start llamaforge-worker"
    )
    try:
        until_waiting(node)
        fleet.until_all_wait()
        node.shell("dd if=/dev/zero of=/var/cache/llamaforge/filler bs=64k", check=False)
        job = train(fleet, "cramped")
        same(job.end(), undisturbed)
        said = fleet.head.run("llamaforge", "events", "-n", "200").stdout + job.said()
        assert any(
            node.name in line and ("room" in line or "space" in line) for line in said.splitlines()
        ), said
    finally:
        node.shell(
            "systemctl stop llamaforge-worker; umount /var/cache/llamaforge;"
            " systemctl start llamaforge-worker"
        )
    until_waiting(node)
    fleet.until_all_wait()
