"""The guide's own way on two real machines: torchrun typed on one, the service joins it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import lab_torchrun as torchrun
import pytest
from lab_service import (
    UNIT,
    active,
    install,
    is_waiting,
    main_pid,
    ranks,
    show,
    status,
    until_waiting,
)

from lab import Lab, Node

PERSON = ("--max-steps 12", "--save-steps 4")


@pytest.fixture(scope="module")
def master(lab: Lab) -> Node:
    """The coordinator's host: the environment, no service."""
    node = lab.add("master", image="installed")
    node.boot()
    return node


@pytest.fixture(scope="module")
def worker(lab: Lab, master: Node) -> Iterator[Node]:
    """A worker that never had a copy of data or model."""
    node = lab.add("worker", image="installed")
    node.boot()
    node.run("umount", "-l", "/srv/llamaforge")
    node.shell("find /opt/llamaforge -path '*shipped/tiny-llama' -exec rm -r {} +")
    install(node, "--master-addr", master.address, "--env", "GREETING=from the unit")
    return node


def test_three_jobs_in_a_row(master: Node, worker: Node) -> None:
    for number in range(3):
        said = torchrun.train(master, *PERSON, f"--output-dir /root/job-{number}")
        assert "done after step 12 of 12" in said
        found = torchrun.proof(master, f"/root/job-{number}")
        metrics = master.read(f"/root/job-{number}/metrics.jsonl").splitlines()
        shares = [json.loads(line)["shares"] for line in metrics if '"shares"' in line]
        assert sum(share.get("worker", 0) for share in shares) > 0
        assert found["guarantee"] == "same numbers"
        until_waiting(worker)
    sums = {torchrun.proof(master, f"/root/job-{n}")["weights_sha256"] for n in range(3)}
    assert len(sums) == 1


def test_lines_in_the_journal_carry_job_rank_and_step(master: Node, worker: Node) -> None:
    lines = [line for line in worker.journal(UNIT) if "LLAMAFORGE_RANK" in line]
    assert {line["LLAMAFORGE_RANK"] for line in lines if line.get("LLAMAFORGE_JOB")} == {"1"}
    jobs = {line["LLAMAFORGE_JOB"] for line in lines if "LLAMAFORGE_JOB" in line}
    assert len(jobs) == 3
    assert any(int(line.get("LLAMAFORGE_STEP", 0)) > 0 for line in lines)
    assert {line["SYSLOG_IDENTIFIER"] for line in lines} == {UNIT}
    one = worker.run("journalctl", f"LLAMAFORGE_JOB={min(jobs)}", "-o", "cat").stdout
    assert one.strip()


def test_status_titles_user_and_environment_while_it_trains(master: Node, worker: Node) -> None:
    child = torchrun.begin(master, "--epochs 20", "--output-dir /root/long")
    worker.wait_for(lambda: " step " in status(worker), seconds=60, what="the status has a step")
    assert re.fullmatch(r"job \S+ step \d+/5000(, [\d,]+ tok/s)?, 2 nodes", status(worker))
    found = worker.shell("ps aux | grep torch | grep -v grep").stdout
    assert re.search(r"torch rank 1 of 2, job \S+", found)
    (pid,) = ranks(worker)
    assert worker.shell(f"stat -c %U /proc/{pid}").stdout.strip() == "llamaforge"
    assert "GREETING=from the unit" in worker.shell(f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout
    assert "CREDENTIALS_DIRECTORY" not in worker.shell(f"cat /proc/{pid}/environ").stdout
    assert "NOTIFY_SOCKET" not in worker.shell(f"cat /proc/{pid}/environ").stdout

    # reload while training: the job goes on, the settings wait for the next one
    conf = worker.read("/etc/llamaforge/worker.conf")
    worker.write("/etc/llamaforge/worker.conf", conf + "LLAMAFORGE_NETWORK_TIMEOUT=900\n")
    before = main_pid(worker)
    worker.run("systemctl", "reload", UNIT)
    assert main_pid(worker) == before
    assert list(ranks(worker)) == [pid]

    # stop while training: a checkpoint, then the end, within TimeoutStopSec
    worker.run("systemctl", "stop", UNIT, timeout=95)
    assert not active(worker)
    assert show(worker, "Result") == "success"
    child.wait(timeout=60)
    kept = master.run("ls", "/root/long/checkpoints").stdout.split()
    assert kept, "the stopped job has left a checkpoint"
    worker.write("/etc/llamaforge/worker.conf", conf)  # an edited file would never be replaced
    worker.run("systemctl", "start", UNIT)
    until_waiting(worker)


def test_several_processes_on_one_node_and_one_on_the_other(master: Node, worker: Node) -> None:
    install(worker, "--nproc-per-node", "2")
    said = torchrun.train(master, *PERSON, "--output-dir /root/unequal")
    assert "3 processes on master (1), worker (2)" in said
    torchrun.train(master, *PERSON, "--batch-size 6", "--output-dir /root/alone", nnodes=1)
    assert (
        torchrun.proof(master, "/root/unequal")["weights_sha256"]
        == torchrun.proof(master, "/root/alone")["weights_sha256"]
    )
    install(worker, "--nproc-per-node", "1")


def test_power_cuts_of_both_and_the_same_numbers_at_the_end(master: Node, worker: Node) -> None:
    until_waiting(worker)
    options = ("--max-steps 60", "--save-steps 5")
    torchrun.train(master, *options, "--output-dir /root/undisturbed")
    cut = (*options, "--output-dir /root/cut", "--auto-resume")
    folder = "/root/cut"

    child = torchrun.begin(master, *cut)
    master.wait_for(lambda: torchrun.steps(master, folder) >= 12, seconds=90, what="step 12")
    worker.power_cut()
    worker.boot()
    master.run("pkill", "-INT", "-f", "torch.distributed.run", check=False)
    child.wait(timeout=90)
    until_waiting(worker)

    child = torchrun.begin(master, *cut)
    master.wait_for(lambda: torchrun.steps(master, folder) >= 30, seconds=90, what="step 30")
    master.power_cut()
    child.wait(timeout=30)
    master.boot()
    worker.wait_for(lambda: is_waiting(worker), seconds=60, what="the worker waits again")

    torchrun.train(master, *cut)
    assert (
        torchrun.proof(master, folder)["weights_sha256"]
        == torchrun.proof(master, "/root/undisturbed")["weights_sha256"]
    )
