"""A new version of LlamaForge is installed on a worker's machine while it trains.

A fleet's job goes on with it; a job under plain torchrun, and one that would get another torch, are
waited for. The machines have no network: the new versions use the libraries that are there.
"""

from __future__ import annotations

import json

import lab_torchrun as torchrun
import pytest
from lab_fleet import Fleet
from lab_service import main_pid, ranks, until_waiting
from source_tree import COPY, PREFIX, SOURCE, another_torch

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 100
DIGESTS = ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained", "steps")


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Fleet:
    """A coordinator's host, where torchrun is typed as well, and one worker."""
    head, node = (lab.add(name, image="installed") for name in ("head", "node1"))
    lab.boot()
    fleet = Fleet(head)
    node.shell(COPY)
    fleet.join(node, "--master-addr", head.address)
    return fleet


@pytest.fixture(scope="module")
def node(fleet: Fleet) -> Node:
    return fleet.workers[0]


def update(node: Node, version: str = "", *options: str) -> str:
    """What an administrator does: a newer source, and the same command."""
    if version:
        project, package = f"{SOURCE}/pyproject.toml", f"{SOURCE}/src/llamaforge/__init__.py"
        node.shell(f"sed -i 's/^version = .*/version = \"{version}\"/' {project}")
        node.shell(f"sed -i 's/^__version__ = .*/__version__ = \"{version}\"/' {package}")
    done = node.run(f"{SOURCE}/install.sh", "--torch", "cpu", *options, timeout=200)
    return done.stdout + done.stderr


def versions(node: Node) -> dict[str, str]:
    """What the worker's port says that it is."""
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], None, 9).read().decode())"
    done = node.run("python3", "-c", code, f"http://{node.address}:29500/health")
    found: dict[str, str] = json.loads(done.stdout)["versions"]
    return found


def program(node: Node) -> str:
    """The version's folder that the running worker was started from."""
    words = node.shell(f"tr '\\0' '\\n' < /proc/{main_pid(node)}/cmdline").stdout.split()
    assert words[0].startswith(f"{PREFIX}/versions/"), words
    return words[0].split("/")[4]


def test_a_torchrun_job_is_waited_for(fleet: Fleet, node: Node) -> None:
    head = fleet.head
    child = torchrun.begin(head, f"--max-steps {STEPS}", "--output-dir /root/classic")
    head.wait_for(lambda: torchrun.steps(head, "/root/classic") >= 3, seconds=120, what="it trains")
    before, running = (main_pid(node), list(ranks(node))), program(node)
    said = update(node, "0.1.77")
    assert child.poll() is None, "the job was over before the update"
    assert "a torchrun job is under way: the worker restarts when it is idle" in said
    assert (main_pid(node), list(ranks(node))) == before
    assert program(node) == running  # still there, though `current` is another one
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, out + err
    assert torchrun.proof(head, "/root/classic")["steps"] == STEPS
    node.wait_for(lambda: main_pid(node) not in (0, before[0]), seconds=60, what="it restarts")
    until_waiting(node, seconds=60)
    assert program(node).startswith("0.1.77-")
    assert versions(node)["llamaforge"] == "0.1.77"
    assert node.shell("ls /run/llamaforge").stdout.count("restart-when-idle") == 0


def test_a_fleets_job_goes_on_with_the_new_version(fleet: Fleet, node: Node) -> None:
    undisturbed = fleet.train("undisturbed", STEPS, "--save-steps 20").end()
    job = fleet.train("updated", STEPS, "--save-steps 20")
    job.until_step(3)
    before = main_pid(node)
    said = update(node, "0.1.78")
    assert "the service restarts; a fleet's job goes on" in said
    assert main_pid(node) != before
    assert program(node).startswith("0.1.78-")
    assert versions(node)["llamaforge"] == "0.1.78"
    proof = job.end()
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    assert proof["guarantee"] == "same numbers"
    first, second = proof["generations"]
    assert first["ended"].startswith("node1 left")
    assert second["first_step"] == first["last_step"] + 1  # nothing was done twice
    fleet.until_all_wait()


def test_the_way_back(fleet: Fleet, node: Node) -> None:
    assert "the service restarts" in update(node, "", "--rollback")
    until_waiting(node, seconds=60)
    assert program(node).startswith("0.1.77-")
    assert versions(node)["llamaforge"] == "0.1.77"
    assert node.run("llamaforge", "--version").stdout.strip().endswith("0.1.77")
    fleet.until_all_wait()


def test_another_torch_waits_or_says_what_it_may_cost(fleet: Fleet, node: Node) -> None:
    """Its libraries are links to the same ones under another name: only the number differs."""
    another_torch(node)
    torch = versions(node)["torch"]
    job = fleet.train("patient", STEPS, "--save-steps 20")
    job.until_step(3)
    before = main_pid(node)
    said = update(node, "0.1.79")
    assert "torch is another one: the worker restarts when it is idle" in said
    assert main_pid(node) == before
    assert len(job.end()["generations"]) == 1  # not even a pause
    node.wait_for(lambda: main_pid(node) not in (0, before), seconds=60, what="it restarts")
    until_waiting(node, seconds=60)
    assert versions(node)["torch"] == "9.9.0"
    fleet.until_all_wait()

    job = fleet.train("impatient", 500_000)
    job.until_step(3)
    said = update(node, "", "--rollback", "--now")
    assert "with another torch: a job that runs may not keep the same numbers" in said
    assert versions(node)["torch"] == torch
    job.until_step(job.steps()[-1] + 3)
    job.cancel()
    assert f"node1 had torch 9.9.0 before, it has {torch} now" in job.said()
    until_waiting(node, seconds=60)
